"""The thread that reads the calls of one address of the native front."""

import threading

import pytest

pytest.importorskip("pygrpc_native", reason="the extra [native] is not installed")

from pygrpc_native import EVENT_CALL

from convvae_service.calls.runner import CallRunner
from convvae_service.observability.metrics import Metrics
from convvae_service.server.native_port import NativePort, SizeLimits


@pytest.mark.parametrize("result", [RuntimeError("no more"), None])
def test_a_thread_that_has_ended_shows(result: Exception | None) -> None:
    """The watchdog sees an end that no close has caused; after a close there is nothing to see."""

    class Listener:
        def __init__(self) -> None:
            self.ends = threading.Event()

        def start(self) -> None:
            pass

        def recv_batch_details(self, _: int) -> None:
            self.ends.wait(10)
            if result is not None:
                raise result

        def close(self) -> None:
            self.ends.set()

    runner = CallRunner(metrics=Metrics(), max_call_s=60)
    for closes in (True, False):
        listener = Listener()
        port = NativePort(listener, [], runner, SizeLimits(1, 1), None)  # type: ignore[arg-type]
        port.start()
        (thread,) = [thread for thread in threading.enumerate() if thread.name == "calls"]
        assert port.busy_since_s is None
        if closes:
            port.close()
        listener.ends.set()
        thread.join(10)
        assert (port.busy_since_s is None) is closes


def test_requests_are_dropped_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that starts is not in the list of its burst any more: others of it may wait for long."""
    runner = CallRunner(metrics=Metrics(), max_call_s=60)
    port = NativePort(None, [None] * 3, runner, SizeLimits(1, 1), None)  # type: ignore[arg-type, list-item]
    events = [(EVENT_CALL, number, number, b"", None, None) for number in range(3)]
    taken: list[tuple[int, int]] = []
    monkeypatch.setattr(port, "_take", lambda number, *_, **__: taken.append((number, len(events))))
    port._take_all(events)
    assert taken == [(0, 2), (1, 1), (2, 0)]


@pytest.mark.parametrize("count", [1, 2])
def test_only_a_call_that_arrives_by_itself_is_alone(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one of several calls is computed by the thread that reads, the others would wait unread."""
    runner = CallRunner(metrics=Metrics(), max_call_s=60)
    port = NativePort(None, [None] * count, runner, SizeLimits(1, 1), None)  # type: ignore[arg-type, list-item]
    alone: list[bool] = []
    monkeypatch.setattr(port, "_take", lambda *_, **facts: alone.append(facts["alone"]))
    port._take_all([(EVENT_CALL, number, number, b"", None, None) for number in range(count)])
    assert alone == [count == 1] * count
