"""The bytes that callers take, as the system tells them."""

import socket
from pathlib import Path

import pytest

from convvae_service.server.connection_watch import count_connections
from convvae_service.server.sent_bytes import taken_bytes

HALF_MIB = 1 << 19


def test_a_reader_of_tcp_moves_the_number() -> None:
    """It changes when the peer takes bytes, and other ports do not count."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as caller:
            connection, _ = server.accept()
            with connection:
                before = taken_bytes({port})
                connection.sendall(b"x" * 1000)
                assert caller.recv(1000, socket.MSG_WAITALL) == b"x" * 1000
                assert taken_bytes({port}) >= before + 1000
                assert taken_bytes({port + 1, "other"}) == 0


def test_a_reader_of_a_unix_socket_moves_the_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays while the peer reads nothing, and changes when it reads; other sockets do not count."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as caller:
        server.bind("vae.sock")
        server.listen()
        assert count_connections({"vae.sock"}) == 0
        caller.connect("vae.sock")
        connection, _ = server.accept()
        with connection:
            assert count_connections({"vae.sock"}) == 1
            connection.setblocking(False)
            assert connection.send(b"x" * HALF_MIB) > 0
            waiting = taken_bytes({"vae.sock"})
            assert waiting != 0
            assert taken_bytes({"vae.sock"}) == waiting
            caller.recv(HALF_MIB)
            assert taken_bytes({"vae.sock"}) != waiting
            assert taken_bytes({"other.sock", 1}) == 0
