"""Several processes train what one does, bit for bit in what is drawn, and they end together."""

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from convvae_trainer.compute.distributed import DistContext, joined
from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.errors import BadConfig, Interrupted
from convvae_trainer.runs.fit import fit
from convvae_trainer.settings.assembly import config_from, to_json_object
from convvae_trainer.settings.config import Config
from convvae_trainer.step.train_state import TrainState
from support.commands import run_two
from support.ended import Ended
from support.run_comparison import assert_near
from support.tiny_run import TINY, needs_compiler, tiny, write_blobs

OBJECTIVES: dict[str, dict[str, Any]] = {
    "vae": {"binarize": "dynamic", "free_bits": 0.05},
    "vae-gan": {"objective": "vae-gan", "adversarial_start": 0.3},
    "vae-disl": {"objective": "vae-disl", "gan_share": 0.5},
    "stopping early": {"early_stop_epochs": 1, "validation_share": 0.1, "importance_samples": 2},
}
COMMAND_LINE = """
from convvae_trainer.__main__ import main
main()
"""
# Sends SIGTERM to the second process in its sixth step, and goes on.
STOPPED = """
import os, signal
from convvae_trainer.step.train_state import TrainState
step = TrainState.step
def wrapped(self, *args, **kwargs):
    if self.num_steps == 5 and self.dist.rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    step(self, *args, **kwargs)
TrainState.step = wrapped
"""
# Trains with several settings in turn; then tries with data that differ; at last the second process ends.
SESSION = """
import json, os, sys
from pathlib import Path
import torch
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.data.dataset import load_dataset
from convvae_trainer.compute.distributed import joined
from convvae_trainer.compute.process import configure_process
from convvae_trainer.errors import TrainerError
from convvae_trainer.runs.fit import fit
from convvae_trainer.step.train_state import TrainState

def thread_names():
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]

configure_process(threads=1)
folder = Path(sys.argv[1])
with joined(torch.device("cpu")) as dist:
    for name, settings in json.loads(sys.argv[2]).items():
        config = config_from(settings)
        fit(config, load_dataset(config), folder / name, dist=dist)

    def make():
        found = (folder / "made").exists()
        (folder / "made").touch()
        return found
    print("found:", dist.rank0_first(make))

    dataset = load_dataset(config)
    dataset.test[0, 0, 0, 0] += dist.rank
    try:
        fit(config, dataset, folder / "differing", dist=dist)
    except TrainerError as error:
        print(error)

    def leave(*args, **kwargs):
        sys.stdout.flush()
        os._exit(7)
    if dist.rank == 1:
        TrainState.step = leave
    try:
        fit(config, load_dataset(config), folder / "left", dist=dist)
    except TrainerError as error:
        print(error)
    print("threads of the groups:", *(name for name in thread_names() if "gloo" in name))
print("threads of the groups at the end:", *(name for name in thread_names() if "gloo" in name))
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Config], list[Ended]]:
    """Two processes that trained with each of some settings, and met two mistakes: folder, settings, ends."""
    folder = tmp_path_factory.mktemp("session")
    common = {"dataset": str(write_blobs(folder / "blobs.npy")), "epochs": 2}
    configs = {name: config_from(tiny(**settings), common) for name, settings in OBJECTIVES.items()}
    settings = json.dumps({name: to_json_object(config) for name, config in configs.items()})
    return folder, configs, run_two([str(folder), settings], code=SESSION)


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_train_what_one_does(
    session: tuple[Path, dict[str, Config], list[Ended]], tmp_path: Path, name: str
) -> None:
    """Weights, moments, averages and figures agree, and so does the evaluation; the record counts them."""
    folder, configs, ended = session
    assert (folder / name / "evaluation.json").exists(), ended
    done = fit(configs[name], load_dataset(configs[name]), tmp_path / "one")
    assert_near(tmp_path / "one", folder / name)
    assert json.loads((folder / name / "run.json").read_text())["segments"][0]["processes"] == 2
    evaluation = json.loads((folder / name / "evaluation.json").read_text())
    assert evaluation["distortion"] == pytest.approx(done.evaluation.bound.distortion, rel=1e-3)
    texts = [(path / "metrics.jsonl").read_text() for path in (tmp_path / "one", folder / name)]
    one_lines, two_lines = ([json.loads(line) for line in text.splitlines()] for text in texts)
    for one, two in zip(one_lines, two_lines, strict=True):
        figures = {key for key, value in one.items() if type(value) in (int, float)} - {"elapsed_s"}
        assert {"epoch", "gradient_norm", "steps"} <= figures
        for key in figures:
            assert two[key] == pytest.approx(one[key], rel=1e-3, abs=1e-5), key


@needs_compiler
@pytest.mark.slow
def test_two_processes_with_compiled_steps_train_what_one_does(tmp_path: Path) -> None:
    """The free bits, on which they agree within the loss, are agreed on in compiled code too."""
    free = {"dataset": str(write_blobs(tmp_path / "blobs.npy")), **TINY, "epochs": 1, "free_bits": 0.05}
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(free | {"compile": True}))
    words = ["fit", "--config", str(settings), "--run-dir", str(tmp_path / "two")]
    first, second = run_two(words, code=COMMAND_LINE)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    config = config_from(free)
    fit(config, load_dataset(config), tmp_path / "one")
    assert_near(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_one_process_of_a_machine_goes_first(session: tuple[Path, dict[str, Config], list[Ended]]) -> None:
    """The other finds what it makes, such as a download."""
    first, second = session[2]
    assert "found: False" in first.out, first.err
    assert "found: True" in second.out, second.err


@pytest.mark.slow
def test_other_images_on_another_machine_are_refused(
    session: tuple[Path, dict[str, Config], list[Ended]],
) -> None:
    """Processes that have read different images stop, all of them, before anything is made."""
    folder, _, ended = session
    for process in ended:
        assert "the processes have read different images of" in process.out, process.err
        assert "every machine needs the same data" in process.out
    assert not (folder / "differing").exists()


@pytest.mark.slow
def test_the_end_of_one_process_is_said_by_the_other(
    session: tuple[Path, dict[str, Config], list[Ended]],
) -> None:
    """The one that is left does not wait for ever, nor end with a traceback."""
    first, second = session[2]
    assert second.code == 7
    assert first.code == 0, first.err
    assert "another process of this run ended, or cannot be reached: its own message says why" in first.out


@pytest.mark.slow
def test_no_thread_of_the_groups_is_left(session: tuple[Path, dict[str, Config], list[Ended]]) -> None:
    """One that frees a tensor while Python ends would abort the process; all end where the groups do."""
    lines = session[2][0].out.splitlines()
    assert any(line.startswith("threads of the groups: ") and "gloo" in line for line in lines), lines
    assert "threads of the groups at the end:" in [line.strip() for line in lines], lines


def test_rows_and_noise_are_those_of_one_process(config: Config, dataset: Dataset) -> None:
    """Each process's binary images and noise are its rows of the whole batch's, bit by bit."""
    config = dataclasses.replace(config, binarize="dynamic", importance_samples=3)
    image = torch.from_numpy(dataset.train[:16]).permute(0, 3, 1, 2)

    def draws(rank: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        dist = DistContext(rank=rank, size=size)
        shape = dataset.image.as_tuple
        train_state = TrainState(config, shape=shape, device=torch.device("cpu"), dist=dist)
        binary = train_state.pixels(dist.rows(image))
        return binary, train_state.noise.normal(len(binary), 3, config.latent_dim)

    binary, noise = draws(0, 1)
    for size in (2, 4):
        parts = [draws(rank, size) for rank in range(size)]
        assert torch.equal(torch.cat([part for part, _ in parts]), binary)
        assert torch.equal(torch.cat([part for _, part in parts]), noise)
    assert set(binary.flatten().tolist()) == {0.0, 1.0}


@pytest.mark.slow
def test_a_signal_stops_all_with_one_checkpoint_and_one_process_goes_on(
    config: Config, dataset: Dataset, tmp_path: Path
) -> None:
    """SIGTERM to one process stops both; the first says so; one process goes on to the same weights."""
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(to_json_object(config)))
    words = ["fit", "--config", str(settings), "--run-dir", str(tmp_path / "two")]
    first, second = run_two(words, code=STOPPED + COMMAND_LINE)
    assert (first.code, second.code) == (143, 143), first.err + second.err
    assert "stopped by SIGTERM at step 6; a checkpoint is saved" in first.err
    assert second.out == ""
    assert "stopped" not in second.err
    fit(config, dataset, tmp_path / "two", resume=True)
    fit(config, dataset, tmp_path / "one")
    assert_near(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_two_processes_go_on_where_one_stopped(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of one process is gone on with by two; only the first prints, and exports once."""
    step = TrainState.step

    def stopped(self: TrainState, *args: Any, **kwargs: Any) -> None:
        if self.num_steps == 5:
            signal.raise_signal(signal.SIGTERM)
        step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "step", stopped)
        with pytest.raises(Interrupted):
            fit(config, dataset, tmp_path / "run")
    export = ["--models", str(tmp_path / "models"), "--name", "blobs"]
    first, second = run_two(
        ["fit", "--resume", "--run-dir", str(tmp_path / "run"), *export], code=COMMAND_LINE
    )
    assert (first.code, second.code) == (0, 0), first.err + second.err
    for words in ("resuming at step 6", ", 2 processes", "test ELBO", "exported"):
        assert words in first.out
    assert second.out == ""
    assert [path.name for path in (tmp_path / "models" / "blobs").iterdir()] == ["1"]
    fit(config, dataset, tmp_path / "one")
    assert_near(tmp_path / "one", tmp_path / "run")


def test_a_batch_that_cannot_be_shared_is_refused(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """Before any work: no folder is made."""
    with pytest.raises(BadConfig, match="a batch of 16 images cannot be shared equally by 3 processes"):
        fit(config, dataset, tmp_path / "run", dist=DistContext(rank=1, size=3))
    assert not (tmp_path / "run").exists()


def test_each_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its number on its machine; too few GPUs, or one named for all, are refused."""
    chosen: list[int] = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    cuda = torch.device("cuda")
    dist = DistContext(rank=3, size=4, local_rank=1, local_size=2)
    assert dist.device(cuda) == torch.device("cuda", 1)
    assert chosen == [1]
    assert dist.device(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(BadConfig, match="device is cuda:0: 2 processes need one GPU each: use cuda"):
        dist.device(torch.device("cuda", 0))
    with pytest.raises(BadConfig, match="3 processes need one GPU each, but torch sees 2"):
        DistContext(rank=2, size=3, local_rank=2, local_size=3).device(cuda)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "two"}, "is not a number: start with torchrun"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR is not set: start with torchrun"),
    ],
)
def test_variables_that_make_no_sense_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    """Half of torchrun's variables are a mistake, which is named."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadConfig, match=message), joined(torch.device("cpu")):
        pass
