"""The bytes that callers take and send, as the system tells them."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convvae_service.server import sent_bytes
from convvae_service.server.open_connections import open_connections
from convvae_service.server.sent_bytes import acknowledged_bytes, received_bytes


def test_a_reader_of_tcp_moves_the_number() -> None:
    """It changes when the peer takes bytes, and other ports do not count."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as caller:
            connection, _ = server.accept()
            with connection:
                before = acknowledged_bytes({port})
                connection.sendall(b"x" * 1000)
                assert caller.recv(1000, socket.MSG_WAITALL) == b"x" * 1000
                assert acknowledged_bytes({port}) >= before + 1000
                assert acknowledged_bytes({port + 1, "other"}) == 0


def test_each_peer_has_the_bytes_that_it_has_sent() -> None:
    """By its address, whether the server has read them or not. Other ports do not count."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        callers = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        accepted = [server.accept()[0] for _ in callers]
        callers[0].sendall(b"x" * 1000)
        assert accepted[0].recv(500, socket.MSG_WAITALL) == b"x" * 500
        first, second = (f"ipv4:127.0.0.1:{caller.getsockname()[1]}" for caller in callers)
        assert received_bytes({port}) == {first: 1000, second: 0}
        assert received_bytes({port + 1}) == {}
        for connection in (*callers, *accepted):
            connection.close()


class Leaving:
    """A connection whose peer leaves when somebody asks for its address the second time."""

    family, type = socket.AF_INET, socket.SOCK_STREAM

    def __init__(self) -> None:
        self._looks = 0

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 1

    def getpeername(self) -> tuple[str, int]:
        self._looks += 1
        if self._looks > 1:
            raise OSError("not connected")
        return "127.0.0.1", 2

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        del level, option
        return bytes(size)


def test_a_peer_that_leaves_meanwhile_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look asks each connection for its peer once, where an error is expected."""

    def connections() -> Iterator[Any]:
        yield Leaving()

    monkeypatch.setattr(sent_bytes, "open_connections", connections)
    assert received_bytes({1}) == {"ipv4:127.0.0.1:2": 0}


def test_a_look_at_the_connections_closes_and_copies_nothing() -> None:
    """A copy that outlives a connection would end a server of gRPC."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        before = open_files()
        for connection in open_connections():
            assert open_files() == before
            if connection.fileno() == server.fileno():
                break
        assert open_files() == before
        with socket.create_connection(server.getsockname()):
            server.accept()[0].close()


def open_files() -> set[str]:
    """Return the numbers of the open files of this process, without the one that lists them."""
    return {file.name for file in Path("/proc/self/fd").iterdir() if file.exists()}
