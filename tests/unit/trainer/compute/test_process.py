"""Process-wide settings: the commands make them, and a run refuses to compute under others."""

import ctypes
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch._functorch.config

from convvae_trainer.compute import process
from convvae_trainer.compute.process import check_process, configure_process, default_threads
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import BadConfig
from convvae_trainer.runs.fit import fit
from convvae_trainer.settings.config import Config

CPU = torch.device("cpu")
# Prints the page faults of taking and freeing 40 MB twenty times, before and after.
FAULTS = """
import resource
import torch
from convvae_trainer.compute.process import configure_process

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.empty(10_000_000).fill_(0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

by_default = faults()
configure_process(keep_freed_memory=True)
faults()
print(by_default, faults())
"""


def test_float32_is_float32() -> None:
    """In a configured process neither matrices nor convolutions are rounded to TF32."""
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = True
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"  # type: ignore[attr-defined]
    configure_process()
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.conv.fp32_precision != "tf32"  # type: ignore[attr-defined]
    assert torch.backends.cuda.matmul.fp32_precision != "tf32"


def test_threads_are_set_where_they_are_given() -> None:
    """Without a number torch keeps its own."""
    configure_process(threads=3)
    assert torch.get_num_threads() == 3
    configure_process()
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("cpus", "processes", "expected"), [(8, 1, 8), (8, 3, 2), (2, 4, 1)])
def test_processes_share_the_cpus(
    monkeypatch: pytest.MonkeyPatch, cpus: int, processes: int, expected: int
) -> None:
    """Each process has an equal share of the available CPUs, and at least one thread."""
    monkeypatch.setattr(process, "available_cpus", lambda: cpus)
    assert default_threads(processes=processes) == expected


def test_a_process_that_is_not_configured_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting that would change the results is named, with the call that sets it."""
    remedy = r"call convvae_trainer.compute.process.configure_process\(threads=1\) first"
    configure_process(threads=1)
    check_process(threads=1, device=torch.device("cuda"), is_compiled=True)
    monkeypatch.setattr(torch._functorch.config, "donated_buffer", True)
    with pytest.raises(BadConfig, match=f"torch.compile frees buffers .*: {remedy}"):
        check_process(threads=1, device=CPU, is_compiled=True)
    check_process(threads=1, device=CPU, is_compiled=False)
    torch.backends.cudnn.allow_tf32 = True
    with pytest.raises(BadConfig, match=f"torch rounds float32 to TF32, .*: {remedy}"):
        check_process(threads=1, device=torch.device("cuda"), is_compiled=False)
    check_process(threads=1, device=CPU, is_compiled=False)
    configure_process(threads=2)
    with pytest.raises(BadConfig, match=f"the run computes on 1 CPU threads, but torch uses 2: {remedy}"):
        check_process(threads=1, device=CPU, is_compiled=False)


def test_fit_changes_no_setting_of_the_process(config: Config, dataset: Dataset, tmp_path: Path) -> None:
    """A run from Python takes the process as it is: its threads are recorded, and others are refused."""
    configure_process(threads=2)
    open_threads = dataclasses.replace(config, threads=None, epochs=1)
    done = fit(open_threads, dataset, tmp_path / "run")
    assert (done.run.record.threads, torch.get_num_threads()) == (2, 2)
    with pytest.raises(BadConfig, match="the run computes on 1 CPU threads, but torch uses 2"):
        fit(config, dataset, tmp_path / "one")
    assert not (tmp_path / "one").exists()
    configure_process(threads=1)
    with pytest.raises(BadConfig, match="the run computes on 2 CPU threads, but torch uses 1"):
        fit(open_threads, dataset, tmp_path / "run", resume=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="no glibc")
def test_a_step_finds_the_memory_of_the_last_one() -> None:
    """Memory that a step frees is there for the next, without a fault for each of its pages."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    by_default, kept = map(int, done.stdout.split())
    assert kept * 10 < by_default


@pytest.mark.parametrize("library", [object(), None])
def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, library: object) -> None:
    """Nothing is done where there is no `mallopt`, or no C library to ask."""

    def load(_: object) -> object:
        if library is None:
            raise OSError("no such library")
        return library

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert not process._keep_freed_memory()
