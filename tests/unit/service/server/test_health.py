import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest

from convvae_service.server.health import HealthServicer

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN


class Checked:
    """A caller of Check, as its context: notes the status that a call is aborted with."""

    def __init__(self) -> None:
        self.code: grpc.StatusCode | None = None

    async def abort(self, code: grpc.StatusCode, details: str = "") -> None:
        del details
        self.code = code
        raise grpc.aio.AbortError


async def states(health: HealthServicer, *names: str) -> dict[str, int | None]:
    """Return what Check answers for each name; None where it is NOT_FOUND."""
    found: dict[str, int | None] = {}
    for name in names:
        context: Any = Checked()
        try:
            found[name] = (await health.Check(HealthCheckRequest(service=name), context)).status
        except grpc.aio.AbortError:
            assert context.code is grpc.StatusCode.NOT_FOUND
            found[name] = None
    return found


async def test_names_follow_the_models() -> None:
    """Services are ready when a model is; models that have gone are unknown; liveness stays."""
    names = ("", "service", "a", "b", "c", "liveness")
    health = HealthServicer(["service"], ["a", "b"])
    assert list((await states(health, *names)).values()) == [
        NOT_SERVING, NOT_SERVING, NOT_SERVING, NOT_SERVING, None, SERVING,
    ]  # fmt: skip
    health.follow({"b": False, "c": True})
    assert list((await states(health, *names)).values()) == [
        SERVING, SERVING, None, NOT_SERVING, SERVING, SERVING,
    ]  # fmt: skip
    health.set_unready()
    assert list((await states(health, *names)).values()) == [
        NOT_SERVING, NOT_SERVING, None, NOT_SERVING, NOT_SERVING, SERVING,
    ]  # fmt: skip


async def test_a_folder_cannot_pass_for_a_service() -> None:
    """A model called like the service or like liveness, usable or not, changes neither, nor when it goes."""
    health = HealthServicer(["service"], ["liveness", "service", "good"])
    health.follow({"liveness": False, "service": False, "good": True})
    names = ("", "service", "good", "liveness")
    assert await states(health, *names) == dict.fromkeys(names, SERVING)
    health.follow({"good": False})
    assert await states(health, "service", "liveness") == {"service": NOT_SERVING, "liveness": SERVING}


class Watcher:
    """A watcher, as its context: takes what is written, at once or never."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.seen: list[int] = []
        self._reads = asyncio.Event()
        if not hangs:
            self._reads.set()

    async def write(self, reply: HealthCheckResponse) -> None:
        await self._reads.wait()
        self.seen.append(reply.status)

    def peer(self) -> str:
        return "ipv4:192.0.2.1:50000"

    def read_on(self) -> None:
        """Take what waits, and all that follows."""
        self._reads.set()


async def rest() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_watcher_that_reads_nothing_holds_up_nobody() -> None:
    """Changes are made and reach the others; when it reads on it gets the latest state, and no older one."""
    health = HealthServicer([], ["a"])
    lazy: Any = Watcher(hangs=True)
    quick: Any = Watcher()
    request = HealthCheckRequest(service="a")
    watches = [asyncio.create_task(health.Watch(request, watcher)) for watcher in (lazy, quick)]
    await rest()
    for ready in (True, False, True):
        health.follow({"a": ready})
        await rest()
    assert quick.seen == [NOT_SERVING, SERVING, NOT_SERVING, SERVING]
    assert lazy.seen == []
    lazy.read_on()
    await rest()
    assert lazy.seen == [NOT_SERVING, SERVING]
    health.end_watches()
    await asyncio.wait_for(asyncio.gather(*watches), 1)


async def test_watches_end_as_soon_as_they_are_read() -> None:
    """A watch that begins afterwards is not kept either; a caller that leaves leaves nothing behind."""
    health = HealthServicer([], [])
    lazy: Any = Watcher(hangs=True)
    left, stays = (asyncio.create_task(health.Watch(HealthCheckRequest(), lazy)) for _ in range(2))
    await rest()
    left.cancel()
    await rest()
    assert left.cancelled()
    assert len(health._changed) == 1
    health.end_watches()
    await asyncio.wait_for(health.Watch(HealthCheckRequest(), lazy), 1)
    assert not stays.done()
    lazy.read_on()
    await asyncio.wait_for(stays, 1)
    assert not health._changed


async def test_only_changes_are_written() -> None:
    """A state that is reported again is not sent again; an unknown name is SERVICE_UNKNOWN until it comes."""
    health = HealthServicer([], ["a"])
    known: Any = Watcher()
    unknown: Any = Watcher()
    watches = [
        asyncio.create_task(health.Watch(HealthCheckRequest(service=name), watcher))
        for name, watcher in (("a", known), ("b", unknown))
    ]
    await rest()
    for models in ({"a": True}, {"a": True}, {"b": True}):
        health.follow(models)
        await rest()
    assert known.seen == [NOT_SERVING, SERVING, SERVICE_UNKNOWN]
    assert unknown.seen == [SERVICE_UNKNOWN, SERVING]
    health.end_watches()
    await asyncio.gather(*watches)


class From(Watcher, Checked):
    """A watcher at an address."""

    def __init__(self, address: str) -> None:
        Watcher.__init__(self)
        Checked.__init__(self)
        self.address = address

    def peer(self) -> str:
        return f"{self.address}:50000"


@pytest.mark.parametrize(
    ("addresses", "most"),
    [(["ipv4:192.0.2.1"], 250), ([f"ipv6:[2001:db8::{n}]" for n in range(10)], 1000), (["unix"], 1000)],
)
async def test_watches_are_limited(addresses: list[str], most: int) -> None:
    """One address leaves places to others, and all together have an end; one that ends frees its place."""
    health = HealthServicer([], [])
    callers: list[Any] = [From(addresses[n % len(addresses)]) for n in range(most + 20)]
    watches = [asyncio.create_task(health.Watch(HealthCheckRequest(), caller)) for caller in callers]
    await rest()
    assert [watch.done() for watch in watches] == [False] * most + [True] * 20
    assert {caller.code for caller in callers[most:]} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert isinstance(watches[-1].exception(), grpc.aio.AbortError)
    watches[0].cancel()
    await rest()
    again = asyncio.create_task(health.Watch(HealthCheckRequest(), callers[0]))
    await rest()
    assert not again.done()
    health.end_watches()
    await asyncio.wait((*watches, again), timeout=5)
    assert not health._changed
    assert not health._watches_of


async def test_a_list_has_every_name_once() -> None:
    """Services, models and `liveness`, as Check has them."""
    health = HealthServicer(["service"], ["good", "bad"])
    health.follow({"good": True, "bad": False})
    caller: Any = From("ipv4:192.0.2.1")
    reply = await health.List(HealthListRequest(), caller)
    listed = {name: found.status for name, found in reply.statuses.items()}
    assert listed == await states(health, "", "service", "good", "bad", "liveness")
    assert listed == {
        "": SERVING,
        "service": SERVING,
        "good": SERVING,
        "bad": NOT_SERVING,
        "liveness": SERVING,
    }


async def test_a_list_that_would_be_too_long_is_refused() -> None:
    """Anybody may ask, without a token, so the answer has an end."""
    health = HealthServicer([], [f"model-{number}" for number in range(1000)])
    caller: Any = From("ipv4:192.0.2.1")
    with pytest.raises(grpc.aio.AbortError):
        await health.List(HealthListRequest(), caller)
    assert caller.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_watch_keeps_no_long_name() -> None:
    """No model has such a name, and each watch would hold it."""
    health = HealthServicer([], [])
    caller: Any = From("ipv4:192.0.2.1")
    with pytest.raises(grpc.aio.AbortError):
        await health.Watch(HealthCheckRequest(service="n" * 1025), caller)
    assert caller.code is grpc.StatusCode.INVALID_ARGUMENT
