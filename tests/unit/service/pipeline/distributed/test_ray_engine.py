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
    assert engine_on(Nodes(Node(3, 0), Node(3, 0)), threads=2).workers == 2


@pytest.mark.parametrize(
    ("nodes", "options", "waits", "size", "found"),
    [
        (
            [Node(2, 0), Node(4, 0), Node(4, 0)],
            {"threads": 8},
            "the run waits",
            "8 CPUs",
            "4 CPUs, or 2 CPUs",
        ),
        ([Node(1, 0)], {"workers": 3}, "2 of 3 workers wait", "1 CPU", "1 CPU"),
        (
            [Node(64, 0), Node(4, 1)],
            {"threads": 4, "workers": 2},
            "1 of 2 workers wait",
            "4 CPUs and a GPU",
            "64 CPUs, or 4 CPUs and 1 GPU",
        ),
    ],
)
def test_workers_without_room_are_named(
    engine_on: Any,
    nodes: list[Node],
    options: dict[str, int],
    waits: str,
    size: str,
    found: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They wait for more nodes, which an autoscaling cluster brings: a line on stderr has the sizes."""
    engine_on(Nodes(Node(4, 0), Node(2, 0)), workers=3, threads=2)
    assert capsys.readouterr() == ("", "")
    engine_on(Nodes(*nodes), **options)
    text = f"{waits} for nodes: a worker takes {size}, and the cluster's nodes have {found}"
    assert capsys.readouterr() == ("", f"warning: {text}\n")
