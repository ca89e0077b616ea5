"""A Ray cluster that loses workers and a node during a run: `make ray-test`."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.embed_kills import parts_on_disk
from support.ray_cluster import TwoNodes, ray_processes, two_ray_nodes
from support.ray_runs import (
    PART_ROWS,
    ROWS,
    TOKEN,
    WAIT_S,
    WORKER,
    Ended,
    assert_same_rows,
    end,
    run,
    run_locally,
    start,
    write_source,
)
from support.waiting import wait_until

OPTIONS = ["--part-rows", PART_ROWS, "--batch-rows", 64]


@pytest.fixture
def cluster() -> Iterator[TwoNodes]:
    """A cluster of two nodes of one CPU each."""
    with two_ray_nodes(token=TOKEN) as nodes:
        yield nodes
    wait_until(lambda: not ray_processes(WORKER))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npy file of many small images."""
    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def local(source: Path, tiny_root: Path) -> Path:
    """The result of the local engine."""
    return run_locally(source, tiny_root, *OPTIONS)


@pytest.mark.parametrize("is_lost", [False, True])
def test_two_nodes_write_the_rows_of_the_local_engine(
    cluster: TwoNodes, source: Path, local: Path, tiny_root: Path, tmp_path: Path, *, is_lost: bool
) -> None:
    """A node that is lost in the middle loses and doubles nothing: the other one goes on."""
    result = tmp_path / "z"
    words = ["--bundle", tiny_root / "tiny", "--engine", "ray", "--ray-address", cluster.address]
    process = start(source, result, *words, *OPTIONS, "--json")
    try:
        wait_until(lambda: parts_on_disk(result) >= 2, within_s=WAIT_S)
        assert len(ray_processes(WORKER)) == 2
        if is_lost:
            cluster.remove_second()
            wait_until(lambda: len(ray_processes(WORKER)) < 2)
            assert parts_on_disk(result) < ROWS // PART_ROWS
        ended = end(process)
    finally:
        process.kill()
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out)["rows"] == ROWS
    assert_same_rows(result, local)


@contextmanager
def killing(name: str) -> Iterator[None]:
    """Kill every process whose command line begins with `name`, as soon as it is there."""
    stopped = threading.Event()

    def kill() -> None:
        while not stopped.wait(0.1):
            for each in ray_processes(name):
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def test_workers_that_always_die_end_the_run(
    cluster: TwoNodes, source: Path, local: Path, tiny_root: Path, tmp_path: Path
) -> None:
    """One line has Ray's reason. Later, another run goes on."""
    result = tmp_path / "z"
    words = ["--bundle", tiny_root / "tiny", "--engine", "ray", "--ray-address", cluster.address, *OPTIONS]
    process = start(source, result, *words)
    try:
        wait_until(lambda: parts_on_disk(result) >= 2, within_s=WAIT_S)
        with killing(WORKER):
            ended = end(process)
    finally:
        process.kill()
    kept = parts_on_disk(result)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.count("\n") == 1
    assert ended.err.startswith(
        "error: Ray lost workers 4 times at the same images: The actor is dead because"
    )
    assert ended.err.endswith(f"; {kept * PART_ROWS:,} rows in {kept} parts are kept: --resume continues\n")
    ended = run(source, result, *words, "--resume", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out)["resumed"] == kept * PART_ROWS
    assert_same_rows(result, local)


def test_more_threads_than_any_node_has_are_named(
    cluster: TwoNodes, source: Path, tiny_root: Path, tmp_path: Path
) -> None:
    """A line says so at once, and the run waits for a node until it is stopped."""
    words = ["--bundle", tiny_root / "tiny", "--engine", "ray", "--ray-address", cluster.address]
    process = start(source, tmp_path / "z", *words, "--threads", 2)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert (
        line
        == "warning: the run waits for nodes: a worker takes 2 CPUs, and the cluster's nodes have 1 CPU\n"
    )
    wait_until((tmp_path / "z").exists)
    process.terminate()
    assert end(process) == Ended(
        143, "", "error: stopped by SIGTERM; no part is complete yet: --resume starts anew\n"
    )
