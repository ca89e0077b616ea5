"""Calls to two replicas: they are spread by clients and by the proxies of docs/load-balancing.md."""

import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from convvae import Client, RetryConfig
from support.observed import ObservedServer, observed
from support.proxy import PROXIES, program, proxied

CALLS = 60

pytestmark = pytest.mark.slow


@pytest.fixture
def replicas(tiny_root: Path, each_front: str) -> Iterator[list[ObservedServer]]:
    """Two servers of the same model."""
    del each_front
    with observed(ObservedServer, tiny_root) as one, observed(ObservedServer, tiny_root) as two:
        yield [one, two]


def answered(replicas: list[ObservedServer]) -> list[int]:
    """Return how many calls each replica has answered."""
    return [replica.calls("Sample").get("OK", 0) for replica in replicas]


def installed(proxy: str) -> str:
    if program(proxy) is None:
        pytest.skip(f"{proxy} is not installed")
    return proxy


def test_a_client_takes_its_addresses_in_turn(replicas: list[ObservedServer]) -> None:
    """One client with two addresses spreads its calls evenly, and loses none when a replica is stopped."""
    target = f"ipv4:{','.join(replica.target for replica in replicas)}"
    with Client(target) as vae:
        vae.sample(1)
        # The second connection may open later than the first.
        while not all(answered(replicas)):
            vae.sample(1)
        before = answered(replicas)
        for _ in range(CALLS):
            vae.sample(1)
        assert [now - then for now, then in zip(answered(replicas), before, strict=True)] == [CALLS / 2] * 2
        with ThreadPoolExecutor(4) as threads:
            calls = [threads.submit(vae.sample, 1) for _ in range(CALLS)]
            replicas[0].send(signal.SIGTERM)
            calls += [threads.submit(vae.sample, 1) for _ in range(CALLS)]
        assert all(len(call.result().images) == 1 for call in calls)
        assert replicas[0].wait() == 0


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_proxy_spreads_the_calls_of_one_connection(replicas: list[ObservedServer], proxy: str) -> None:
    """Both replicas answer, although the client has one connection; each reply is the client's."""
    with (
        proxied(installed(proxy), [replica.target for replica in replicas]) as target,
        Client(target, retry=RetryConfig(retries=0)) as vae,
    ):
        found = [vae.sample(1, seed=seed).seed for seed in range(CALLS)]
    assert found == list(range(CALLS))
    assert min(answered(replicas)) > CALLS / 4
    assert sum(answered(replicas)) == CALLS


@pytest.mark.usefixtures("each_front")
@pytest.mark.parametrize("proxy", PROXIES)
def test_a_proxy_calls_unix_sockets(tiny_root: Path, proxy: str) -> None:
    """The replicas of one machine need no port. The proxy may run as another user."""
    installed(proxy)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        places = [f"unix:{folder}/{name}.sock" for name in "ab"]
        form = "unix@" if proxy == "haproxy" else "unix:"
        with (
            observed(ObservedServer, tiny_root, "--address", places[0], "--socket-mode", "666") as one,
            observed(ObservedServer, tiny_root, "--address", places[1], "--socket-mode", "666") as two,
            proxied(proxy, [place.replace("unix:", form) for place in places]) as target,
            Client(target, retry=RetryConfig(retries=0)) as vae,
        ):
            for _ in range(CALLS):
                vae.sample(1)
            assert min(answered([one, two])) > CALLS / 4
