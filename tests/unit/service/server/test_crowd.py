"""A crowd, in which new callers wait."""

import asyncio

import pytest

from convvae_service.server import crowd as crowd_module
from convvae_service.server.crowd import Crowd


async def test_nobody_waits_without_a_crowd() -> None:
    """Before, and after, all are let in at once."""
    crowd = Crowd()
    crowd.disperse()
    await asyncio.wait_for(crowd.let_in("a"), 5)
    crowd.gather({"a"})
    crowd.disperse()
    await asyncio.wait_for(crowd.let_in("b"), 5)


async def test_a_crowd_that_begins_again_lets_all_in() -> None:
    """Callers that wait are let in, and those that connect from then on wait."""
    crowd = Crowd()
    crowd.gather({"a"})
    waiting = asyncio.create_task(crowd.let_in("b"))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    crowd.gather({"a", "b"})
    await asyncio.wait_for(waiting, 5)
    await asyncio.wait_for(crowd.let_in("b"), 5)
    late = asyncio.create_task(crowd.let_in("c"))
    await asyncio.sleep(0.01)
    assert not late.done()
    late.cancel()
    crowd.disperse()


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """If nobody ends the crowd, a caller is let in after a while."""
    monkeypatch.setattr(crowd_module, "_MAX_WAIT_S", 0.02)
    crowd = Crowd()
    crowd.gather(frozenset())
    await asyncio.wait_for(crowd.let_in("a"), 5)
    assert crowd.is_there
    crowd.disperse()


async def test_callers_on_a_unix_socket_do_not_wait() -> None:
    """Nothing tells which of them were connected before, so each of their messages would wait."""
    crowd = Crowd()
    crowd.gather({"ipv4:127.0.0.1:1"})
    await asyncio.wait_for(crowd.let_in("unix:"), 0.5)
    crowd.disperse()
