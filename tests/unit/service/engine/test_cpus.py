import os
from pathlib import Path

import pytest

from convvae_service.engine.cpus import available_cpus


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture(autouse=True)
def sixteen_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


def test_without_a_quota_the_affinity_counts(tmp_path: Path) -> None:
    """A machine without control groups offers the CPUs of the process's mask."""
    assert available_cpus(root=tmp_path) == 16


@pytest.mark.parametrize(("quota", "cpus"), [("max 100000", 16), ("250000 100000", 2), ("50000 100000", 1)])
def test_version_2_quota(tmp_path: Path, quota: str, cpus: int) -> None:
    """A quota of 2.5 CPUs allows two busy threads, half a CPU one."""
    files = {
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/a/cpu.max": quota,
        "sys/fs/cgroup/a/b/cpu.max": "max",
    }
    assert available_cpus(root=machine(tmp_path, files)) == cpus


def test_in_a_container_the_group_is_mounted_at_the_base(tmp_path: Path) -> None:
    """Inside a container the path may lead out of the mount. The quota is then at its base."""
    files = {"proc/self/cgroup": "0::/../outside\n", "sys/fs/cgroup/cpu.max": "300000 100000"}
    assert available_cpus(root=machine(tmp_path, files)) == 3


def test_version_1_quota(tmp_path: Path) -> None:
    """The older control groups keep quota and period in two files."""
    files = {
        "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/x\n",
        "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "400000\n",
        "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
    }
    assert available_cpus(root=machine(tmp_path, files)) == 4


def test_version_1_without_a_quota(tmp_path: Path) -> None:
    """-1 means no quota."""
    files = {
        "proc/self/cgroup": "4:cpu:/\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    }
    assert available_cpus(root=machine(tmp_path, files)) == 16
