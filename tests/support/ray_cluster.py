"""A Ray cluster on this machine, in processes of its own, which end with the process that started them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

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
# A lost node is noticed after two seconds instead of fifteen.
_NODES_PROGRAM = f"""
import os, sys
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from ray.cluster_utils import Cluster
each = {{"num_cpus": 1, "object_store_memory": {_OBJECT_STORE_BYTES}}}
checks = {{"initial_delay_ms": 0, "period_ms": 500, "failure_threshold": 4}}
settings = {{f"health_check_{{name}}": value for name, value in checks.items()}}
head = each | {{"include_dashboard": False, "_system_config": settings}}
cluster = Cluster(initialize_head=True, head_node_args=head)
second = cluster.add_node(**each)
cluster.wait_for_nodes()
print(cluster.address, flush=True)
if sys.stdin.readline():
    cluster.remove_node(second, allow_graceful=False)
sys.stdin.read()
cluster.shutdown()
"""


@contextmanager
def _printed_address(program: str, *words: str, token: str) -> Iterator[tuple[str, IO[str]]]:
    """Run a program that starts a cluster, and yield the address that it prints, and its standard input."""
    command = [sys.executable, "-c", program, *words]
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
        yield address, process.stdin
    finally:
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(WAIT_S)
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def ray_cluster(cpus: int, *, token: str) -> Iterator[str]:
    """Start a cluster of one node that asks for a token, and yield its address."""
    with _printed_address(_PROGRAM, str(cpus), token=token) as (address, _):
        yield address


class TwoNodes(NamedTuple):
    """A cluster of two nodes of one CPU each."""

    address: str
    orders: IO[str]

    def remove_second(self) -> None:
        """Kill all processes of the second node."""
        self.orders.write("remove\n")
        self.orders.flush()


@contextmanager
def two_ray_nodes(*, token: str) -> Iterator[TwoNodes]:
    """Start a cluster of two nodes that asks for a token."""
    with _printed_address(_NODES_PROGRAM, token=token) as (address, orders):
        yield TwoNodes(address, orders)


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
