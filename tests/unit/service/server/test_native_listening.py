"""Listeners of the native front: every address of the host, or an error."""

import socket

import pytest

pytest.importorskip("pygrpc_native", reason="the extra [native] is not installed")

from pygrpc_native import NativeGrpcFront

from convvae_service.server.native_listening import listen_natively


def make(target: str) -> NativeGrpcFront:
    return NativeGrpcFront(target, [])


def ports_of(address: str) -> tuple[list[NativeGrpcFront], int]:
    listeners = listen_natively(address, make)
    assert len({listener.bound_port for listener in listeners}) == 1
    return listeners, listeners[0].bound_port


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "localhost:0"])
def test_every_address_of_a_host_is_open(address: str) -> None:
    """Wildcards and `localhost` mean both families, on one port."""
    listeners, port = ports_of(address)
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, port), timeout=5):
            pass
    for listener in listeners:
        listener.close()


def test_one_address_is_only_itself() -> None:
    """127.0.0.1 takes no connection on ::1, and the other way round."""
    for address, other in (("127.0.0.1:0", "::1"), ("[::1]:0", "127.0.0.1")):
        (listener,), port = ports_of(address)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((other, port), timeout=5)
        listener.close()


@pytest.mark.parametrize(
    ("taken", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)], ids=["IPv4", "IPv6"]
)
@pytest.mark.parametrize("host", ["localhost", "0.0.0.0"])
def test_a_port_in_use_on_one_address_is_an_error(
    host: str, taken: str, family: socket.AddressFamily
) -> None:
    """It is not enough that another address of the host is free."""
    with (
        socket.create_server((taken, 0), family=family) as other,
        pytest.raises(OSError, match="in use"),
    ):
        listen_natively(f"{host}:{other.getsockname()[1]}", make)


def test_an_unknown_host_is_an_error() -> None:
    """The reason is the one of the system."""
    with pytest.raises(OSError, match="not known"):
        listen_natively("nowhere.invalid:0", make)


@pytest.mark.parametrize("error", [OSError("in use"), RuntimeError("no threads")])
def test_a_listener_that_fails_closes_the_others(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is passed on, and no port stays open."""
    monkeypatch.setattr("convvae_service.server.native_listening._takes_ipv4", lambda: False)
    made: list[NativeGrpcFront] = []

    def make_one(target: str) -> NativeGrpcFront:
        if made:
            raise error
        made.append(make(target))
        return made[0]

    port = free_port()
    with pytest.raises(type(error), match=str(error)):
        listen_natively(f"0.0.0.0:{port}", make_one)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_system_that_divides_the_families_has_two_listeners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an IPv6 socket takes no IPv4, each family has its own."""
    monkeypatch.setattr("convvae_service.server.native_listening._takes_ipv4", lambda: False)
    asked: list[str] = []

    class Listener:
        bound_port = 7

    def note(target: str) -> Listener:
        asked.append(target)
        return Listener()

    listen_natively("0.0.0.0:0", note)  # type: ignore[arg-type]
    assert asked == ["0.0.0.0:0", "[::]:7"]
