"""The attacks with small numbers: that they run, and that they tell when a target is missed."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attack import (
    compressed_messages,
    credentials,
    drain_peers,
    elements,
    floods,
    handshakes,
    headers,
    image_files,
    lingering,
    odd_metadata,
    odd_repository,
    page_readers,
    partial_messages,
    unread_replies,
)
from attack.target import CAP_MB, Outcome, attacked

# A busy machine delays every caller, and its tests take the processor.
BUSY = {"the honest caller waits at most 250 ms at p99", "no peer costs more than 1 s", "each is within 5 s"}
END = "    measure_to_files(__file__, __doc__, measure)\n"
SMALL: dict[str, Callable[[str], dict[str, Any]]] = {
    "compressed_messages": lambda front: compressed_messages.measure(front, mib=1.0, repeat_s=0.0),
    "credentials": lambda front: credentials.measure(front, kinds=2),
    "drain_peers": lambda front: drain_peers.measure(front, peers=1),
    "elements": lambda front: elements.measure(front, mib=0.1, repeat_s=0.0),
    "floods": lambda front: floods.measure(front, seconds=0.1),
    "handshakes": lambda front: handshakes.measure(front, connections=5, hold_s=0.2),
    "headers": lambda front: headers.measure(front, seconds=0.2, connections=3),
    "image_files": lambda front: image_files.measure(front, scale=0.001, repeat_s=0.0),
    "lingering": lambda front: lingering.measure(front, mib=0.5, repeat_s=0.0),
    "odd_metadata": lambda front: odd_metadata.measure(front, calls=3),
    "odd_repository": lambda front: odd_repository.measure(front, names=2, versions=1),
    "page_readers": lambda front: page_readers.measure(front, readers=20, hold_s=0.2),
    "partial_messages": lambda front: partial_messages.measure(front, mib=0.2, hold_s=0.1),
    "unread_replies": lambda front: unread_replies.measure(front, hold_s=0.2, rows=10, crowd=3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_small_attack(front: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It meets its targets, because it sends little."""
    monkeypatch.setattr("attack.target.AROUND_S", 0.1)
    result = SMALL[name](front)
    unmet = {target for target, met in result["met"].items() if not met}
    assert unmet <= BUSY, result


def test_every_program_is_run() -> None:
    """No program is without a small run, and `make attack` names each."""
    folder = Path(__file__).parent
    programs = {path.stem for path in folder.glob("*.py") if path.read_text().endswith(END)}
    assert programs == SMALL.keys()
    words = (folder.parents[1] / "Makefile").read_text().partition("ATTACKS ?= ")[2].partition("\n\n")[0]
    assert set(words.replace("\\", " ").split()) == programs


def test_a_target_that_is_missed_is_told(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes more memory than the limit, keeps it and then ends, misses each target."""
    monkeypatch.setattr("attack.target.MOST_PEAK_MB", 1.0)
    monkeypatch.setattr("attack.target.MOST_LEFT_MB", -1000.0)
    monkeypatch.setattr("attack.target.MOST_HONEST_MS", 0.0)
    monkeypatch.setattr("attack.target.SETTLE_S", 0.5)
    with attacked("grpcio", tiny_root) as target:
        target.observe("nothing", lambda _: Outcome(sent_bytes=1))
        target.server.process.kill()
        target.server.process.wait()
        # The honest caller makes a call each 50 ms.
        time.sleep(1)
        target.observe("afterwards", lambda _: Outcome())
        result = target.finish()
    assert result["attacks"]["nothing"]["missed"] == ["peak_mb", "left_mb", "p99_ms"]
    assert result["attacks"]["afterwards"]["missed"] == ["the server has ended"]
    assert not any(result["met"].values())


def test_a_server_that_takes_too_much_is_ended(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cap holds, and the result has it."""
    assert CAP_MB > 1.0
    with attacked("grpcio", tiny_root) as target:
        monkeypatch.setattr("attack.target.CAP_MB", 1.0)
        target.server.process.wait(timeout=10)
        assert target.server.passed_cap
