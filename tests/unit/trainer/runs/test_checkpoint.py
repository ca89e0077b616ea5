"""Checkpoints: whole or not at all, and never pickled."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import BadRun
from convvae_trainer.runs.checkpoint import read_checkpoint, write_checkpoint
from convvae_trainer.runs.fit import Fitted
from convvae_trainer.runs.start import load_run

WRITER = """
import sys, itertools, torch
from pathlib import Path
from convvae_trainer.runs.checkpoint import write_checkpoint
for number in itertools.count():
    write_checkpoint(Path(sys.argv[1]), {"w": torch.full((400_000,), float(number))}, {"number": number})
    print(number, flush=True)
"""


def test_tensors_and_state_come_back(tmp_path: Path) -> None:
    """Every type of tensor and the JSON state read back as they were."""
    tensors = {
        "a": torch.randn(3, 4),
        "b": torch.arange(5, dtype=torch.uint8),
        "c": torch.tensor(1.5, dtype=torch.float64),
    }
    write_checkpoint(tmp_path / "c", tensors, {"progress": {"epoch": 3}, "x": [1, None]})
    read, state = read_checkpoint(tmp_path / "c")
    assert state == {"progress": {"epoch": 3}, "x": [1, None]}
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.slow
def test_a_kill_during_a_save_loses_nothing(tmp_path: Path) -> None:
    """A writer killed at any moment leaves a whole checkpoint: the last one it finished, or the next."""
    path = tmp_path / "checkpoint"
    for delay_s in (0.0, 0.003, 0.007):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        finished = [2, *(int(line) for line in process.stdout.read().split())][-1]
        process.stdout.close()
        process.wait()
        tensors, state = read_checkpoint(path)
        assert state["number"] in (finished, finished + 1)
        assert torch.equal(tensors["w"], torch.full((400_000,), float(state["number"])))


def test_a_failed_save_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk is full, the old checkpoint stays and no temporary file is left."""
    path = tmp_path / "checkpoint"
    write_checkpoint(path, {"w": torch.ones(1)}, {"number": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("convvae_trainer.runs.checkpoint.os.fsync", full)
    with pytest.raises(OSError, match="No space left") as raised:
        write_checkpoint(path, {"w": torch.zeros(1)}, {"number": 2})
    # Not the temporary file, whose name means nothing to a user.
    assert raised.value.filename == str(path)
    assert read_checkpoint(path)[1] == {"number": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x80\x04\x95", bytes(8) + b"{}", b"\xff" * 64])
def test_damage_is_refused(tmp_path: Path, data: bytes) -> None:
    """A damaged checkpoint, or a pickle, is refused by its name."""
    path = tmp_path / "checkpoint"
    path.write_bytes(data)
    with pytest.raises(BadRun, match="checkpoint cannot be read"):
        read_checkpoint(path)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    """A checkpoint that ends early is refused."""
    path = tmp_path / "checkpoint"
    write_checkpoint(path, {"w": torch.ones(100)}, {})
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(BadRun, match="checkpoint cannot be read"):
        read_checkpoint(path)


def test_another_safetensors_file_is_refused(tmp_path: Path) -> None:
    """A safetensors file that is no checkpoint says so; a missing one, that too."""
    from safetensors.torch import save_file

    save_file({"w": torch.ones(1)}, tmp_path / "other")
    with pytest.raises(BadRun, match="other is not a checkpoint of the format convvae-checkpoint-1"):
        read_checkpoint(tmp_path / "other")
    with pytest.raises(BadRun, match="does not exist: the run was stopped before its first checkpoint"):
        read_checkpoint(tmp_path / "absent")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_memory_that_is_short_is_no_damage(
    fitted: tuple[Fitted, Dataset], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A good checkpoint that does not fit into memory now is not called damaged."""
    run, train_state, progress = load_run(fitted[0].run.path)
    tensors, _ = read_checkpoint(run.checkpoint)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(train_state.optimizers, "restore", fail)
    with pytest.raises(type(error), match="memory"):
        train_state.restore(tensors, num_steps=progress.step)
