"""The rule for lanes and threads."""

import pytest

from convvae_service.engine import parallelism
from convvae_service.engine.parallelism import Parallelism, choose_parallelism


@pytest.mark.parametrize(
    ("cpus", "gpu", "given", "device", "expected"),
    [
        (1, False, (0, 0), "auto", (1, 1)),
        (2, False, (0, 0), "auto", (2, 1)),
        (8, False, (0, 0), "cpu", (8, 1)),
        (20, False, (0, 0), "auto", (8, 2)),
        (64, False, (0, 0), "auto", (8, 8)),
        (4, False, (1, 0), "auto", (1, 4)),
        (4, False, (3, 0), "auto", (3, 1)),
        (4, False, (8, 0), "auto", (8, 1)),
        (4, False, (0, 3), "auto", (4, 3)),
        (4, True, (0, 0), "auto", (1, 4)),
        (4, True, (0, 0), "cuda:1", (1, 4)),
        (4, True, (0, 0), "cpu", (4, 1)),
        (4, True, (2, 1), "auto", (2, 1)),
    ],
)
def test_lanes_share_the_cpus(
    cpus: int,
    gpu: bool,
    given: tuple[int, int],
    device: str,
    expected: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One lane of one thread for each CPU, up to eight lanes; a GPU has one lane; given numbers stay."""
    monkeypatch.setattr(parallelism, "available_cpus", lambda: cpus)
    monkeypatch.setattr(parallelism, "has_gpu", lambda: gpu)
    assert choose_parallelism(*given, device=device) == Parallelism(*expected)
