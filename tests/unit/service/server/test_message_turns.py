"""Turns of large messages, and the pauses between them."""

import asyncio

import pytest

from convvae_service.server.message_turns import MessageTurns


class Clock:
    """A clock that the test moves."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def copied(turns: MessageTurns, clock: Clock, seconds: float) -> None:
    """Let a copy take so long."""
    began_s = clock.now_s
    clock.now_s += seconds
    turns.end(began_s)


async def waits(turn: "asyncio.Future[None] | None") -> bool:
    """Return whether the turn is still to come, after some time of the event loop."""
    await asyncio.sleep(0.01)
    return turn is not None and not turn.done()


async def test_nobody_waits_without_a_long_copy() -> None:
    """The usual case: no message, or only small ones."""
    clock = Clock()
    turns = MessageTurns(clock)
    assert turns.join(0.0) is None
    copied(turns, clock, 0.004)
    assert turns.join(0.0) is None


async def test_the_line_stands_still_for_a_quarter_of_the_copy() -> None:
    """A read that began long ago waits. One that began a moment ago has no large message."""
    clock = Clock()
    turns = MessageTurns(clock)
    copied(turns, clock, 0.24)
    assert turns.join(clock.now_s - 0.01) is None
    turn = turns.join(clock.now_s - 0.1)
    assert await waits(turn)
    clock.now_s += 0.05
    assert turns.join(clock.now_s - 0.1) is not None
    clock.now_s += 0.02
    await asyncio.sleep(0.06)
    assert not await waits(turn)


async def test_turns_come_in_the_order_of_arrival() -> None:
    """One after another, each after the pause that the one before it has caused."""
    clock = Clock()
    turns = MessageTurns(clock)
    copied(turns, clock, 0.02)
    first, second, third = (turns.join(0.0) for _ in range(3))
    clock.now_s += 0.03
    assert first is not None
    await first
    copied(turns, clock, 0.02)
    assert await waits(second)
    clock.now_s += 0.03
    assert second is not None
    await asyncio.wait_for(second, 1)
    # The second one was small: the third need not wait.
    assert third is not None
    await asyncio.wait_for(third, 1)
    assert turns.join(0.0) is None


@pytest.mark.parametrize("leave", [1, 3])
async def test_who_leaves_the_line_has_no_turn(leave: int) -> None:
    """The next one has it, if there is one, and the line does not stop."""
    clock = Clock()
    turns = MessageTurns(clock)
    copied(turns, clock, 0.02)
    line = [turns.join(0.0) for _ in range(3)]
    for turn in line[:leave]:
        assert turn is not None
        turn.cancel()
    clock.now_s += 0.03
    await asyncio.sleep(0.05)
    assert all(turn is not None and turn.done() for turn in line)
    assert turns.join(0.0) is None


async def test_a_very_long_copy_has_a_short_pause() -> None:
    """On a machine that stands still, the line goes on."""
    clock = Clock()
    turns = MessageTurns(clock)
    copied(turns, clock, 5.0)
    assert turns.join(0.0) is not None
    clock.now_s += 0.3
    await asyncio.sleep(0.3)
    assert turns.join(0.0) is None
