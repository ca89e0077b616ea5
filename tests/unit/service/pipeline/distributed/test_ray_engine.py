"""The number and size of workers on Ray, from what a cluster has."""

from pathlib import Path
from typing import Any

import pytest

from convvae_service.pipeline.distributed import ray_engine
from convvae_service.pipeline.distributed.cluster import Node
from convvae_service.pipeline.distributed.ray_engine import RayEngine


class Nodes:
    """A cluster of these nodes, without Ray, that notes how many CPUs its own machine should give."""

    def __init__(self, *nodes: Node) -> None:
        self._nodes = nodes
        self.own_cpus = 0

    def __call__(self, address: str | None, *, cpus: int) -> "Nodes":
        del address
        self.own_cpus = cpus
        return self

    def nodes(self) -> list[Node]:
        return list(self._nodes)


@pytest.fixture
def engine_on(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that returns an engine on a cluster."""
    (bundle,) = (tiny_root / "tiny").iterdir()

    def engine_on(cluster: Nodes, **options: Any) -> RayEngine:
        monkeypatch.setattr(ray_engine, "Cluster", cluster)
        monkeypatch.setattr(ray_engine, "available_cpus", lambda: 2)
        given: dict[str, Any] = {"address": None, "workers": None, "threads": None}
        given |= {"device": "auto", "precision": None}
        return RayEngine(bundle, **(given | options))

    return engine_on


@pytest.mark.parametrize(
    ("options", "cpus"),
    [
        ({}, 2),
        ({"threads": 4}, 4),
        ({"workers": 3}, 3),
        ({"workers": 3, "threads": 2}, 6),
        ({"workers": 1}, 2),
    ],
)
def test_own_cluster_has_room_for_every_worker(engine_on: Any, options: dict[str, int], cpus: int) -> None:
    """Ray would wait without end for a node with the CPUs of a worker."""
    cluster = Nodes(Node(2, 0))
    engine_on(cluster, **options)
    assert cluster.own_cpus == cpus


def test_workers_on_cpus_share_all_nodes(engine_on: Any) -> None:
    """There is one worker for each CPU, or for as many as its threads."""
    nodes = Node(4, 0), Node(2, 0)
    engine = engine_on(Nodes(*nodes))
    assert (engine.workers, engine.threads) == (6, 1)
    assert engine_on(Nodes(*nodes), threads=2).workers == 3


def test_threads_beside_a_gpu_are_those_of_its_node(engine_on: Any) -> None:
    """CPUs of nodes without a GPU do not count: a worker and its threads are on one node."""
    engine = engine_on(Nodes(Node(64, 0), Node(8, 2), Node(12, 2)))
    assert (engine.workers, engine.threads, engine.device) == (4, 4, "auto")
    assert engine_on(Nodes(Node(64, 2))).threads == 8
    assert engine_on(Nodes(Node(64, 2)), device="cpu").workers == 64
