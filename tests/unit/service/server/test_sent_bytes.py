"""The bytes that callers take, as the system tells them."""

import socket

from convvae_service.server.sent_bytes import acknowledged_bytes


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
