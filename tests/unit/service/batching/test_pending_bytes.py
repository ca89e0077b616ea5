"""The account of the bytes that calls hold."""

import random
import threading

import pytest

from convvae_service.batching.pending_bytes import UNCOUNTED, HeldBytes, PendingBytes
from convvae_service.errors import Overloaded

KIB = 1 << 10


def test_bytes_count_until_they_are_released() -> None:
    """A call adds what it holds, keeps its reply, and gives everything back."""
    account = PendingBytes(1000 * KIB)
    held = account.hold()
    held.add(300 * KIB)
    held.add(200 * KIB)
    assert account.num_bytes == 500 * KIB
    held.keep(10)
    assert account.num_bytes == 10
    held.release()
    assert account.num_bytes == 0


def test_what_does_not_fit_is_refused() -> None:
    """The refusal names the setting and a delay, and changes nothing."""
    account = PendingBytes(1000 * KIB)
    first, second = account.hold(), account.hold()
    first.add(900 * KIB)
    with pytest.raises(Overloaded, match="max_pending_bytes") as caught:
        second.add(200 * KIB)
    assert caught.value.retry_delay_s > 0
    assert account.num_bytes == 900 * KIB
    first.release()
    second.add(200 * KIB)


def test_large_calls_leave_room_for_small_ones() -> None:
    """A sixteenth is for calls of at most 64 KiB, whatever the large ones hold."""
    account = PendingBytes(16 * 256 * KIB)
    large = account.hold()
    with pytest.raises(Overloaded):
        large.add(account.max_bytes - 255 * KIB)
    large.add(account.max_bytes - 256 * KIB)
    for _ in range(4):
        account.hold().add(64 * KIB)
    with pytest.raises(Overloaded):
        account.hold().add(1)


def test_large_replies_leave_room_for_small_calls() -> None:
    """They exist already, so they may pass the limit. Small calls have their sixteenth all the same."""
    account = PendingBytes(16 * 256 * KIB)
    large = [account.hold() for _ in range(3)]
    for held in large:
        held.keep(account.max_bytes)
    small = [account.hold() for _ in range(4)]
    for held in small:
        held.add(64 * KIB)
    with pytest.raises(Overloaded):
        account.hold().add(1)
    # A small call whose reply is large is a large one from then on.
    small[0].keep(65 * KIB)
    account.hold().add(64 * KIB)
    with pytest.raises(Overloaded):
        account.hold().add(1)
    for held in (*large, *small):
        held.release()
    with pytest.raises(Overloaded):
        account.hold().add(account.max_bytes)


def test_a_call_cannot_grow_into_the_room_of_small_ones() -> None:
    """The bytes that a call holds already count: many small additions are one large call."""
    account = PendingBytes(16 * 256 * KIB)
    large = account.hold()
    large.add(account.max_bytes - 256 * KIB)
    with pytest.raises(Overloaded):
        large.add(1)


def test_release_counts_once() -> None:
    """A call that has given its bytes back holds nothing again, whatever comes late."""
    account = PendingBytes(1000)
    other, held = account.hold(), account.hold()
    other.add(7)
    held.add(100)
    held.release()
    held.release()
    held.add(10**9)
    held.keep(10**9)
    assert account.num_bytes == 7


def test_a_reply_counts_even_where_it_does_not_fit() -> None:
    """It exists already: later calls are refused until it is sent."""
    account = PendingBytes(1000)
    held = account.hold()
    held.keep(5000)
    with pytest.raises(Overloaded):
        account.hold().add(1)
    held.release()
    account.hold().add(1)


def test_uncounted_calls() -> None:
    """Calls that no runner runs are never refused."""
    UNCOUNTED.add(1 << 62)
    UNCOUNTED.add(1 << 62)


def test_a_storm_leaves_the_account_empty() -> None:
    """Threads add, keep and release in any order, also twice: the sum is exact at the end."""
    account = PendingBytes(90_000)
    refused = 0

    def use(seed: int, shared: list[HeldBytes]) -> None:
        nonlocal refused
        dice = random.Random(seed)
        for _ in range(3000):
            held = dice.choice(shared) if dice.random() < 0.3 else account.hold()
            try:
                held.add(dice.randrange(100_000))
                if dice.random() < 0.5:
                    held.keep(dice.randrange(1000))
            except Overloaded:
                refused += 1
            held.release()
            assert account.num_bytes >= 0

    shared = [account.hold() for _ in range(50)]
    threads = [threading.Thread(target=use, args=(seed, shared)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused > 0
    assert account.num_bytes == 0
