"""Replies that callers do not read, and the end of their connections."""

import asyncio
import socket

from convvae_service.batching.pending_bytes import PendingBytes
from convvae_service.server.hang_up import end_all_but, hang_up
from convvae_service.server.unsent_replies import UnsentReplies


def peer(number: int) -> str:
    return f"ipv4:127.0.0.1:{number}"


class Watched:
    """Replies of callers 0, 1 and so on, of which each may take 60 s."""

    def __init__(self) -> None:
        self.account = PendingBytes(1000)
        self.closed: list[set[str]] = []
        self.replies = UnsentReplies(
            self.account, at_most_s=60, end=lambda peers: self.closed.append(set(peers))
        )

    def check(self, after_s: float) -> list[set[str]]:
        """Look as if so much time had passed, and return what has been closed so far."""
        self.replies.check(asyncio.get_running_loop().time() + after_s)
        return self.closed


async def test_a_caller_has_the_whole_time_to_read() -> None:
    """After it, the connection is closed, once."""
    watched = Watched()
    watched.replies.add("reply", peer(1))
    assert watched.check(59) == []
    assert watched.check(61) == [{peer(1)}]
    assert watched.check(99) == [{peer(1)}]


async def test_a_reply_that_is_sent_is_forgotten() -> None:
    """A reply whose caller has left is dropped too, and an unknown one does no harm."""
    watched = Watched()
    watched.replies.add("reply", peer(1))
    watched.replies.discard("reply")
    watched.replies.discard("reply")
    assert watched.check(99) == []


async def test_a_slow_reader_has_a_second_while_calls_hold_much() -> None:
    """Replies that nobody reads must not keep the room of all callers."""
    watched = Watched()
    watched.replies.add("reply", peer(1))
    held = watched.account.hold()
    held.add(501)
    assert watched.check(0.9) == []
    assert watched.check(1.1) == [{peer(1)}]


async def test_the_oldest_come_first() -> None:
    """A few at a time: the end of one connection may free all that is needed."""
    watched = Watched()
    for number in range(25):
        watched.replies.add(number, peer(number))
    assert watched.check(61) == [{peer(number) for number in range(10)}]
    assert watched.check(61)[1:] == [{peer(number) for number in range(10, 20)}]


def test_a_connection_is_closed_by_its_address() -> None:
    """Only that one, of IPv4 or IPv6, also where one socket takes both; other files are left alone."""
    for family, host, address in (
        (socket.AF_INET, "127.0.0.1", "ipv4:127.0.0.1:{}"),
        (socket.AF_INET6, "::1", "ipv6:%5B::1%5D:{}"),
    ):
        with socket.create_server((host, 0), family=family) as server:
            _assert_closes_one(server, host, address)
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        _assert_closes_one(server, "127.0.0.1", "ipv4:127.0.0.1:{}")


def _assert_closes_one(server: socket.socket, host: str, address: str) -> None:
    port = server.getsockname()[1]
    with socket.create_connection((host, port)) as first, socket.create_connection((host, port)) as second:
        accepted = [server.accept()[0] for _ in range(2)]
        hang_up({address.format(first.getsockname()[1]), "ipv4:192.0.2.1:1", "unix:"})
        first.settimeout(20)
        assert first.recv(1) == b""
        accepted[1].sendall(b"x")
        assert second.recv(1) == b"x"
        for connection in accepted:
            connection.close()


def test_all_connections_of_a_port_are_ended_but_some() -> None:
    """Bytes that are sent already arrive. Other ports, and the sockets that listen, are left alone."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as other:
        addresses = [server.getsockname(), server.getsockname(), other.getsockname()]
        callers = [socket.create_connection(address) for address in addresses]
        accepted = [listener.accept()[0] for listener in (server, server, other)]
        accepted[0].sendall(b"answer")
        end_all_but({f"ipv4:127.0.0.1:{callers[1].getsockname()[1]}"}, {server.getsockname()[1]})
        callers[0].settimeout(20)
        assert callers[0].recv(100) == b"answer"
        assert callers[0].recv(100) == b""
        for caller, connection in zip(callers[1:], accepted[1:], strict=True):
            connection.sendall(b"x")
            assert caller.recv(1) == b"x"
        callers.append(socket.create_connection(server.getsockname()))
        accepted.append(server.accept()[0])
        for connection in (*callers, *accepted):
            connection.close()
