"""Steps that are graphed: what is called when, and that all which they change stays where it is."""

import dataclasses
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from convvae_trainer.compute.cuda_graph import WARMUP_CALLS, GraphedStep
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import Interrupted
from convvae_trainer.runs.fit import fit
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config
from convvae_trainer.settings.objectives import OBJECTIVES
from convvae_trainer.step.train_state import TrainState
from support.tiny_run import tiny

CPU = torch.device("cpu")
SHAPE = (12, 10, 1)
# Parts of `tensors`; the averaged weights move outside of the graph.
KINDS = ("weights.", "optimizer.", "sums", "latents", "skipped_in_a_row")


class FakeGraph:
    """Stands for a CUDA graph: what is called while it is graphed is not done, and done at each replay."""

    recording: "FakeGraph | None" = None

    def __init__(self) -> None:
        self.generators: list[torch.Generator] = []
        self.work: list[Any] = []

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    def replay(self) -> None:
        for work in self.work:
            work()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[FakeGraph]:
    """Every graph that is made."""
    made: list[FakeGraph] = []

    def make() -> FakeGraph:
        made.append(FakeGraph())
        return made[-1]

    @contextmanager
    def graphed(graph: FakeGraph, *, stream: object) -> Iterator[None]:
        assert stream == f"stream of {CPU}"
        FakeGraph.recording = graph
        yield
        FakeGraph.recording = None

    monkeypatch.setattr(torch.cuda, "CUDAGraph", make)
    monkeypatch.setattr(torch.cuda, "graph", graphed)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    return made


def test_each_call_is_done_once_whether_plain_or_replayed(graphs: list[FakeGraph]) -> None:
    """Three plain calls, then one recording, and replays of it with the batches that come."""
    seen: list[int] = []

    def function(batch: Tensor) -> None:
        if FakeGraph.recording is None:
            seen.append(int(batch[0]))
        else:
            FakeGraph.recording.work.append(lambda: seen.append(int(batch[0])))

    generator = torch.Generator()
    graphed = GraphedStep(function, generator)
    for number in range(WARMUP_CALLS + 3):
        assert len(graphs) == (number > WARMUP_CALLS)
        graphed(torch.tensor([number, 0]))
    assert seen == list(range(WARMUP_CALLS + 3))
    assert len(graphs) == 1
    assert graphs[0].generators == [generator]
    assert len(graphs[0].work) == 1
    with pytest.raises(ValueError, match=r"a batch of \(1,\) cannot be replayed as \(2,\)"):
        graphed(torch.tensor([1]))
    assert len(seen) == WARMUP_CALLS + 3


def learner_of(objective: str, **changes: Any) -> TrainState:
    """Return a small train_state."""
    if "discriminator_width" in OBJECTIVES[objective].settings:
        changes["discriminator_width"] = 4
    config = config_from({"dataset": "x"}, tiny(objective=objective), changes)
    return TrainState(config, shape=SHAPE, device=CPU)


def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (16, 1, 12, 10), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_whatever_a_step_changes_stays_where_it_is(objective: str) -> None:
    """A graph writes to addresses: no step, new epoch, look or best weight puts a tensor elsewhere."""
    train_state = learner_of(objective)

    def step(fraction: float) -> None:
        train_state.step(images(), learning_rate=1e-3, beta=0.5, fraction=fraction)

    def places() -> dict[str, int]:
        held = {name: value for name, value in train_state.tensors().items() if name.startswith(KINDS)}
        for name, optimizer in train_state.optimizers.by_name.items():
            held |= {f"{name} {n}": group["lr"] for n, group in enumerate(optimizer.param_groups)}
        return {name: value.data_ptr() for name, value in held.items()}

    for fraction in (0.0, 1.0):
        step(fraction)
    before = places()
    assert {name.split(".")[0] for name in before} >= {"weights", "optimizer", "sums", "latents"}
    for fraction in (0.0, 1.0):
        step(fraction)
        train_state.step_metrics.means()
        train_state.step_metrics.clear()
        with train_state.ema.swapped_in():
            pass
        train_state.ema.keep_best()
        step(fraction)
    assert places() == before


def test_nothing_is_recorded_on_a_cpu_nor_where_a_run_says_so() -> None:
    """Recording is for one process on a GPU."""
    assert not learner_of("vae").is_graphed
    train_state = learner_of("vae")
    train_state.device = torch.device("cuda")
    assert train_state.is_graphed
    train_state = learner_of("vae", cuda_graph=False)
    train_state.device = torch.device("cuda")
    assert not train_state.is_graphed


def test_a_phase_a_restore_and_the_end_begin_anew() -> None:
    """A graph belongs to one phase, to the moments that were there, and to the steps."""
    train_state = learner_of("vae-gan")
    early = train_state._graph(False)
    assert train_state._graph(False) is early
    late = train_state._graph(True)
    assert late is not early
    train_state.restore({name: value.clone() for name, value in train_state.tensors().items()}, num_steps=0)
    again = train_state._graph(True)
    assert again is not late
    train_state.free_graphs()
    assert train_state._graph(True) is not again


def test_moments_come_back_in_the_order_of_their_weights() -> None:
    """A checkpoint's tensors are contiguous; weights that are channels last go on the same."""
    train_states = [learner_of("vae", blocks=1) for _ in range(2)]
    for train_state in train_states:
        train_state.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    first, second = train_states
    step: dict[str, Any] = {"learning_rate": 1e-3, "beta": 1.0}
    for _ in range(2):
        first.step(images(), **step)
    held = {name: value.detach().clone().contiguous() for name, value in first.tensors().items()}
    second.restore(held, num_steps=2)
    for train_state in train_states:
        train_state.step(images(), **step)
    for name, value in first.tensors().items():
        assert torch.equal(value, second.tensors()[name]), name
    strides = {state["exp_avg"].stride() == p.stride() for p, state in second.optimizers.moments().items()}
    assert strides == {True}


def test_a_run_goes_on_without_graphs(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether steps are replayed may differ on resume, as the device may."""
    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "step", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Interrupted):
            fit(config, dataset, tmp_path / "run")
    config = dataclasses.replace(config, cuda_graph=False)
    done = fit(config, dataset, tmp_path / "run", resume=True)
    assert not done.train_state.config.cuda_graph
