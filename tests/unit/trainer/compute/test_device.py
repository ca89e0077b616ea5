"""Where and how a run computes: what is asked for, and what is measured."""

import ctypes
import dataclasses
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from convvae_trainer.compute.device import (
    BUDGET_S,
    available_cores,
    choose_computation,
    enough_memory,
    keep_freed_memory,
    pick_device,
)
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import BadConfig
from convvae_trainer.runs.fit import fit
from convvae_trainer.settings.config import Config
from convvae_trainer.step.train_state import TrainState

BF16 = torch.bfloat16
CPU = torch.device("cpu")
# Prints the page faults of taking and freeing 40 MB twenty times, before and after.
FAULTS = """
import resource
import torch
from convvae_trainer.compute.device import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.empty(10_000_000).fill_(0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

by_default = faults()
assert keep_freed_memory()
faults()
print(by_default, faults())
"""


def test_a_missing_gpu_is_refused() -> None:
    """Asking for a GPU that is not there says how many there are."""
    count = torch.cuda.device_count()
    with pytest.raises(BadConfig, match=f"device is cuda:{count}, but torch sees {count} CUDA devices"):
        pick_device(f"cuda:{count}")
    for name in ("foo", "cuda:999", "cuda:", "mps"):
        with pytest.raises(BadConfig, match=f"device is '{name}': use auto, cpu, cuda or cuda:N"):
            pick_device(name)


def test_float32_is_float32() -> None:
    """Once the device is chosen neither matrices nor convolutions are rounded to TF32, whatever is read."""
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = True
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"  # type: ignore[attr-defined]
    pick_device("cpu")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.conv.fp32_precision != "tf32"  # type: ignore[attr-defined]
    assert torch.backends.cuda.matmul.fp32_precision != "tf32"


class Clock:
    """Tells the seconds that trials took; a trial takes what `cost_s` says of (type, threads)."""

    def __init__(self, cost_s: dict[tuple[torch.dtype | None, int], float]) -> None:
        self.cost_s, self.now_s = cost_s, 0.0
        self.trials: list[tuple[torch.dtype | None, int]] = []

    def __call__(self) -> float:
        return self.now_s

    def trial(self, dtype: torch.dtype | None) -> None:
        key = dtype, torch.get_num_threads()
        self.trials.append(key)
        self.now_s += self.cost_s[key]


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two cores and bf16."""
    monkeypatch.setattr("convvae_trainer.compute.device.available_cores", lambda: 2)
    monkeypatch.setattr("convvae_trainer.compute.device._has_bf16", lambda _: True)


@pytest.mark.usefixtures("two_cores")
def test_the_faster_way_is_taken() -> None:
    """Precision and threads that are left open are measured; the first choice stays unless beaten clearly."""
    clock = Clock({(None, 2): 0.040, (BF16, 2): 0.039, (None, 1): 0.060, (BF16, 1): 0.020})
    choose = partial(choose_computation, device=CPU, trial=clock.trial, clock=clock)
    chosen = choose(precision="auto", threads=None)
    assert (chosen.precision, chosen.threads) == ("bf16", 1)
    expected = "fp32 on 2 threads 40, bf16 on 2 threads 39, fp32 on 1 thread 60, bf16 on 1 thread 20"
    assert chosen.reason == f"measured, ms a step: {expected}"
    chosen = choose(precision="auto", threads=2)
    assert (chosen.precision, chosen.threads) == ("fp32", 2)
    chosen = choose(precision="fp32", threads=None)
    assert (chosen.precision, chosen.threads) == ("fp32", 2)
    assert torch.get_num_threads() == 1


@pytest.mark.usefixtures("two_cores")
def test_what_is_settled_is_not_measured() -> None:
    """Measuring is announced, as it takes seconds; where nothing is open it is left out."""
    clock = Clock({(None, 2): 1.0, (BF16, 2): 1.0})
    said: list[str] = []
    choose = partial(
        choose_computation, device=CPU, trial=clock.trial, clock=clock, announce=lambda: said.append("now")
    )
    choose(precision="fp32", threads=2)
    assert (said, clock.trials) == ([], [])
    choose(precision="auto", threads=2)
    assert said == ["now"]


@pytest.mark.usefixtures("two_cores")
def test_measuring_is_bounded() -> None:
    """A way that is far slower is tried once, and no trial starts when the time is over."""
    clock = Clock({(None, 2): 1.9, (BF16, 2): 0.3, (None, 1): 0.2, (BF16, 1): 0.25})
    chosen = choose_computation(precision="auto", threads=None, device=CPU, trial=clock.trial, clock=clock)
    assert (chosen.precision, chosen.threads) == ("fp32", 1)
    # The first trial of all has nothing to be compared with.
    assert clock.trials.count((None, 2)) == 2
    assert clock.now_s <= BUDGET_S + 1.9
    clock = Clock({(None, 2): 20.0, (BF16, 2): 20.0, (None, 1): 20.0, (BF16, 1): 20.0})
    chosen = choose_computation(precision="auto", threads=None, device=CPU, trial=clock.trial, clock=clock)
    assert clock.trials == [(None, 2)]
    assert (chosen.precision, chosen.threads) == ("fp32", 2)


def test_a_trial_of_large_images_is_small(
    config: Config, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of small images is tried whole, of large ones a few."""
    sizes: list[int] = []

    def note(self: TrainState, image_BCHW: torch.Tensor) -> None:
        sizes.append(len(image_BCHW))

    monkeypatch.setattr(TrainState, "trial", note)
    settings: dict[str, Any] = {"precision": "auto", "epochs": 1, "batch_size": 64}
    monkeypatch.setattr("convvae_trainer.compute.device._has_bf16", lambda _: True)
    fit(dataclasses.replace(config, **settings), dataset, tmp_path / "small")
    assert set(sizes) == {64}
    sizes.clear()
    monkeypatch.setattr("convvae_trainer.runs.fit.TRIAL_VALUES", 120)
    fit(dataclasses.replace(config, **settings), dataset, tmp_path / "large")
    assert set(sizes) == {16}


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="no glibc")
def test_a_step_finds_the_memory_of_the_last_one() -> None:
    """Memory that a step frees is there for the next, without a fault for each of its pages."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    by_default, kept = map(int, done.stdout.split())
    assert kept * 10 < by_default


@pytest.mark.parametrize("library", [object(), None])
def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, library: object) -> None:
    """Where there is no `mallopt`, or no C library to ask, nothing is done."""

    def load(_: object) -> object:
        if library is None:
            raise OSError("no such library")
        return library

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert not keep_freed_memory()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 GiB"),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_memory_that_runs_out_is_said_in_one_line(error: Exception) -> None:
    """Too large a model or batch is the user's to change; other errors are not hidden."""
    with pytest.raises(BadConfig, match="memory ran out: lower batch_size or width"), enough_memory():
        raise error
    with pytest.raises(RuntimeError, match="shapes"), enough_memory():
        raise RuntimeError("shapes cannot be multiplied")


@pytest.mark.parametrize(
    ("text", "at_most"),
    [("150000 100000", 2), ("max 100000", 10**6), ("1000 100000", 1), ("nonsense", 10**6)],
)
def test_cores_respect_a_containers_quota(tmp_path: Path, text: str, at_most: int) -> None:
    """A container's quota bounds the threads; without one the affinity does."""
    (tmp_path / "cpu.max").write_text(text)
    assert 1 <= available_cores(tmp_path / "cpu.max") <= min(at_most, len(os.sched_getaffinity(0)))
    assert available_cores(tmp_path / "absent") == len(os.sched_getaffinity(0))
