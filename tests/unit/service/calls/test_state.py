from typing import Any

import pytest

from convvae_service.calls.runner import CallRunner
from convvae_service.calls.state import State
from convvae_service.calls.status import Refusal
from convvae_service.observability.call import Call
from convvae_service.observability.metrics import Metrics


@pytest.mark.parametrize("state", State)
def test_the_state_decides_whether_calls_are_taken(state: State) -> None:
    """Calls are answered while the server serves or drains; the refusals of other states name the state."""
    runner = CallRunner(metrics=Metrics(), max_call_s=60, state=state)

    async def echo(request: str, call: Call) -> str:
        return request

    replies: list[Any] = []
    runner.prepare(Call("Sample", "id-1"), echo, "hello", replies.append).start()
    (reply,) = replies
    if state in (State.SERVING, State.DRAINING):
        assert reply == "hello"
    else:
        assert isinstance(reply, Refusal)
        expected = f"the server is {state.name.lower()}: try again, or another server"
        assert (reply.code, reply.message) == ("UNAVAILABLE", expected)
    assert runner.in_flight == 0
