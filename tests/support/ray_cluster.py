"""A Ray cluster of one node, in processes of their own, which end with the process that started them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

WAIT_S = 60.0
_OBJECT_STORE_BYTES = 100 << 20
_PROGRAM = f"""
import logging, os, sys
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray
ray.init(
    "local", num_cpus=int(sys.argv[1]), object_store_memory={_OBJECT_STORE_BYTES}, include_dashboard=False,
    logging_level=logging.ERROR, log_to_driver=False,
)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""


@contextmanager
def ray_cluster(cpus: int, *, token: str) -> Iterator[str]:
    """Start a cluster that asks for a token, and yield its address."""
    command = [sys.executable, "-c", _PROGRAM, str(cpus)]
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    # It ends when its standard input does, also if this process is killed.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address, "Ray did not start"
        yield address
    finally:
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(WAIT_S)
        process.kill()
        process.wait()
        process.stdout.close()


def ray_processes(name: str) -> list[int]:
    """Return the ids of the processes of this user whose command line begins with `name`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.stat().st_uid == os.getuid() and path.read_bytes().startswith(name.encode()):
                found.append(int(path.parent.name))
    return found


def descendants(parent: int) -> list[int]:
    """Return the ids of the processes that a process started, and that those started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(") ")[2].split()[1]) == parent:
                child = int(path.parent.name)
                found += [child, *descendants(child)]
    return found
