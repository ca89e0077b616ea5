"""Listening sockets: which addresses a host means."""

import errno
import re
import socket
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Gauge

from convvae_service.errors import StartupError
from convvae_service.server import listening
from convvae_service.server.listening import listen
from convvae_service.server.metrics_page import MetricsPage

V4, V6 = "127.0.0.1", "[::1]"


def answers(host: str, port: int) -> bool:
    """Tell whether the page of metrics is there."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{host}:{port}/metrics", timeout=5) as page:
            return "a_gauge 3.0" in page.read().decode()
    except OSError:
        return False


def has_ipv6() -> bool:
    """Tell whether this machine has IPv6 on loopback."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "hosts"),
    [
        ("0.0.0.0", {V4, V6}),
        ("localhost", {V4, V6}),
        ("LocalHost", {V4, V6}),
        ("[::]", {V4, V6}),
        ("[0:0::0]", {V4, V6}),
        (V4, {V4}),
        (V6, {V6}),
    ],
)
def test_the_page_is_where_its_host_means(host: str, hosts: set[str]) -> None:
    """A wildcard of either family means both, on one port; an address means itself."""
    if not has_ipv6():
        hosts = hosts - {V6}
        if not hosts:
            return
    registry = CollectorRegistry()
    Gauge("a_gauge", "A gauge", registry=registry).set(3)
    page = MetricsPage(registry, f"{host}:0")
    try:
        assert {each for each in (V4, V6) if answers(each, page.port)} == hosts
    finally:
        page.close()
    assert not answers(V4, page.port)


@pytest.fixture
def two_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with two addresses, whatever this machine has."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, 0)) for place in ("127.0.0.1", "127.0.0.2")]

    def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(*first, (place, port)) for *first, (place, _) in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.mark.usefixtures("two_addresses")
def test_a_name_means_all_its_addresses_on_one_port() -> None:
    """Port 0 is one number for all of them, and an address of them that is in use is an error."""
    sockets = listen("name:0")
    (port,) = {each.getsockname()[1] for each in sockets}
    assert [each.getsockname()[0] for each in sockets] == ["127.0.0.1", "127.0.0.2"]
    sockets[0].close()
    with pytest.raises(OSError) as caught:
        listen(f"name:{port}")
    assert caught.value.errno == errno.EADDRINUSE
    sockets[1].close()
    for each in listen(f"name:{port}"):
        each.close()


@pytest.mark.usefixtures("two_addresses")
def test_a_free_port_is_free_on_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the port that the first address gave is in use on the second, another one is tried."""
    listen_on, calls = listening._listen_on, []

    def busy_once(family: socket.AddressFamily, place: tuple[object, ...]) -> socket.socket:
        calls.append(place)
        if len(calls) == 2:
            raise OSError(errno.EADDRINUSE, "in use")
        return listen_on(family, place)

    monkeypatch.setattr(listening, "_listen_on", busy_once)
    sockets = listen("name:0")
    assert len({each.getsockname()[1] for each in sockets}) == 1
    for each in sockets:
        each.close()


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_a_machine_without_ipv6_listens_on_ipv4(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The family that is missing is left out; if nothing is left, that is the error."""
    listen_on = listening._listen_on

    def without_ipv6(family: socket.AddressFamily, place: tuple[object, ...]) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(number, "no IPv6")
        return listen_on(family, place)

    monkeypatch.setattr(listening, "_listen_on", without_ipv6)
    for host in ("0.0.0.0", "[::]"):
        (only,) = listen(f"{host}:0")
        assert only.family == socket.AF_INET
        only.close()
    with pytest.raises(StartupError, match=r"metrics address \[::1\]:9464 cannot be used: it is not an addr"):
        MetricsPage(CollectorRegistry(), "[::1]:9464")


def test_the_reason_is_named() -> None:
    """A port in use, an address of another machine and an unknown name are different messages."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for address, reason in (
            (f"127.0.0.1:{port}", "another program listens there"),
            ("192.0.2.1:9464", "it is not an address of this machine"),
        ):
            wanted = f"metrics address {address} cannot be used: {reason}; choose another with --metrics"
            with pytest.raises(StartupError, match=re.escape(wanted)):
                MetricsPage(CollectorRegistry(), address)
    with pytest.raises(StartupError, match=r"no\.such\.host\.invalid:1 cannot be used: "):
        MetricsPage(CollectorRegistry(), "no.such.host.invalid:1")
