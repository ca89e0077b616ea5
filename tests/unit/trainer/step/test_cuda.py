"""On a GPU: every objective trains, stops, resumes, is evaluated as on the CPU, and is exported."""

import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from convvae_service.bundle import read_bundle
from convvae_trainer.commands.evaluate import run_evaluate
from convvae_trainer.commands.export import run_export
from convvae_trainer.compute.cuda_graph import WARMUP_CALLS
from convvae_trainer.data.dataset import load_dataset
from convvae_trainer.errors import Interrupted
from convvae_trainer.runs.fit import fit
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config
from convvae_trainer.settings.objectives import OBJECTIVES
from convvae_trainer.step.train_state import TrainState
from support.tiny_run import TINY, tiny, write_blobs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

# Relative, of float32 figures: sums are taken in another order.
TOLERANCE = 1e-3
# After a step that was replayed.
STOP_AT_STEP = WARMUP_CALLS + 2


@pytest.mark.parametrize("precision", ["fp32", "auto"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_run_on_a_gpu_does_all_that_one_on_the_cpu_does(
    objective: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is stopped, resumed, evaluated with the same figures as on the CPU, and exported with parity."""
    changes: dict[str, Any] = {"device": "cuda", "objective": objective, "epochs": 2, "precision": precision}
    if "discriminator_width" in OBJECTIVES[objective].settings:
        changes["discriminator_width"] = 4
    config = config_from({"dataset": str(write_blobs(tmp_path / "blobs.npy"))}, TINY, changes)
    dataset, run_dir = load_dataset(config), tmp_path / "run"
    step = TrainState.step

    def stopping(self: TrainState, *args: Any, **kwargs: Any) -> None:
        if self.num_steps == STOP_AT_STEP:
            signal.raise_signal(signal.SIGTERM)
        step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "step", stopping)
        with pytest.raises(Interrupted):
            fit(config, dataset, run_dir)
    done = fit(config, dataset, run_dir, resume=True)
    assert done.train_state.device.type == "cuda"
    assert [segment.step for segment in done.run.record.segments] == [0, STOP_AT_STEP + 1]
    assert sum(line.get("skipped_steps", 0) for line in done.run.read_metrics()) == 0
    found = {device: run_evaluate(run_dir, device=device) for device in ("cuda", "cpu")}
    for name in ("elbo", "distortion", "rate", "mse", "psnr_db", "ssim"):
        on_gpu, on_cpu = found["cuda"].to_json_object()[name], found["cpu"].to_json_object()[name]
        assert on_gpu == (None if on_cpu is None else pytest.approx(on_cpu, rel=TOLERANCE)), name
    assert found["cuda"].bound.active_units == found["cpu"].bound.active_units
    exported = run_export(run_dir, models=tmp_path / "models", name="blobs")
    assert read_bundle(exported.folder).manifest.parity["fp32"].image_steps <= 1


def state_of(objective: str, dataset: str, **changes: Any) -> TrainState:
    """Return the state of a small run on the GPU."""
    small = {"discriminator_width": 4} if "discriminator_width" in OBJECTIVES[objective].settings else {}
    config = config_from({"dataset": dataset}, tiny(objective=objective), {"device": "cuda"}, small, changes)
    return TrainState(config, shape=(12, 10, 1), device=torch.device("cuda"))


def batch_of(dataset: str) -> torch.Tensor:
    """Return the first training images as uint8 of shape (B, C, H, W)."""
    images = torch.from_numpy(load_dataset(config_from({"dataset": dataset}, TINY)).train)
    return images[:16].permute(0, 3, 1, 2).contiguous().cuda()


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_no_step_makes_the_host_wait(tmp_path: Path, cuda_graph: bool) -> None:
    """PyTorch reports no step that waits for the GPU, for any objective and in either phase."""
    dataset = str(write_blobs(tmp_path / "blobs.npy"))
    batch = batch_of(dataset)
    for objective in OBJECTIVES:
        train_state = state_of(objective, dataset, cuda_graph=cuda_graph)
        for fraction in (0.0, 1.0):
            for _ in range(WARMUP_CALLS + 1):
                train_state.step(batch, learning_rate=1e-3, beta=1.0, fraction=fraction)
            torch.cuda.set_sync_debug_mode("error")
            try:
                train_state.step(batch, learning_rate=1e-3, beta=1.0, fraction=fraction)
            finally:
                torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("blocks", [0, 1])
@pytest.mark.parametrize("channels", [1, 3])
def test_networks_of_usual_sizes_learn(channels: int, blocks: int, autocast: torch.dtype | None) -> None:
    """Gradients of larger networks have other memory layouts, and each of them is applied."""
    config = Config(dataset="x", likelihood="bernoulli", blocks=blocks, device="cuda")
    train_state = TrainState(config, shape=(28, 28, channels), device=torch.device("cuda"), autocast=autocast)
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (16, channels, 28, 28), generator=generator, dtype=torch.uint8).cuda()
    before = [parameter.detach().clone() for parameter in train_state.model.parameters()]
    elbos = []
    for _ in range(20 * WARMUP_CALLS):
        train_state.step_metrics.clear()
        train_state.step(image, learning_rate=1e-3, beta=1.0)
        elbos.append(train_state.step_metrics.means()["elbo"])
    assert elbos[-1] > elbos[0]
    assert train_state.step_metrics.means()["skipped_steps"] == 0
    for old, new in zip(before, train_state.model.parameters(), strict=True):
        assert not torch.equal(old, new)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_replayed_steps_are_those_that_are_launched_one_by_one(
    objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random draws are equal bit by bit, everything else within rounding, at changing rates and weights."""
    # AdamW makes whole steps of rounding where a gradient is next to none.
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    dataset = str(write_blobs(tmp_path / "blobs.npy"))
    batch = batch_of(dataset)
    train_states = [state_of(objective, dataset, cuda_graph=is_on) for is_on in (False, True)]
    assert [train_state.is_graphed for train_state in train_states] == [False, True]
    for number in range(4 * WARMUP_CALLS):
        for train_state in train_states:
            train_state.step(
                batch,
                learning_rate=1e-3 / (1 + number),
                beta=number / 8,
                fraction=float(number >= 2 * WARMUP_CALLS),
            )
    plain, replayed = (train_state.tensors() for train_state in train_states)
    assert torch.equal(plain["generator"], replayed["generator"])
    assert plain.keys() == replayed.keys()
    for name, value in plain.items():
        value, other = value.detach().double(), replayed[name].detach().double()
        scale = max(1e-3, value.abs().max().item())
        assert (value - other).abs().max().item() <= TOLERANCE * scale, name
    first, second = (train_state.step_metrics.means() for train_state in train_states)
    assert first["steps"] == second["steps"] == 4 * WARMUP_CALLS
    assert first["skipped_steps"] == second["skipped_steps"] == 0
    assert plain["sums"].isfinite().all()


def test_a_replayed_step_that_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    """The step is skipped and counted, and the next one is taken."""
    dataset = str(write_blobs(tmp_path / "blobs.npy"))
    batch = batch_of(dataset)
    train_state = state_of("vae", dataset)
    for _ in range(WARMUP_CALLS + 1):
        train_state.step(batch, learning_rate=1e-3, beta=1.0)
    before = [parameter.detach().clone() for parameter in train_state.model.parameters()]
    train_state.step(batch, learning_rate=1e-3, beta=math.nan)
    assert all(torch.equal(*pair) for pair in zip(before, train_state.model.parameters(), strict=True))
    assert train_state.step_metrics.skipped_in_a_row() == 1
    train_state.step(batch, learning_rate=1e-3, beta=1.0)
    assert not all(torch.equal(*pair) for pair in zip(before, train_state.model.parameters(), strict=True))
    assert train_state.step_metrics.means()["skipped_steps"] == 1
