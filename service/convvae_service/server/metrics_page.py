"""The page of metrics, over HTTP."""

import asyncio
import contextlib
import threading
from collections import Counter
from typing import Any
from wsgiref.headers import Headers

from prometheus_client import CollectorRegistry, make_wsgi_app

from convvae_service.errors import StartupError
from convvae_service.server.listening import listen, why_not

__all__ = ["MetricsPage"]

# Time for a reader to send its request and to read the page.
_MAX_READER_S = 5.0
# Readers at the same time. A further one takes the place of another.
_MAX_READERS = 32
# Readers that wait to be accepted.
_BACKLOG = 128
_MAX_REQUEST_BYTES = 16_384


class MetricsPage:
    """Serves a registry over HTTP, in a thread of its own.

    It answers one request for each connection. Readers that are slow, or too many, are dropped: the oldest
    one first, of the address that has the most. So they shut out nobody who reads the page at once.
    """

    def __init__(self, registry: CollectorRegistry, address: str) -> None:
        """Start serving on every address that `address`, HOST:PORT, means.

        Raises:
            StartupError: The address cannot be used.
        """
        try:
            self._sockets = listen(address)
        except OSError as error:
            raise StartupError(
                f"metrics address {address} cannot be used: {why_not(error)};"
                " choose another with --metrics-address, or 'off'"
            ) from None
        self.port: int = self._sockets[0].getsockname()[1]
        self._application = make_wsgi_app(registry)
        # Each reader's address, the oldest reader first.
        self._readers: dict[asyncio.StreamWriter, str] = {}
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        # asyncio would log readers that disconnect, and that no file is free.
        self._loop.set_exception_handler(lambda *_: None)
        servers = [
            await asyncio.start_server(self._answer, sock=sock, limit=_MAX_REQUEST_BYTES, backlog=_BACKLOG)
            for sock in self._sockets
        ]
        await self._closing.wait()
        # A server that is closed while it accepts a reader leaves the socket open.
        for sock in self._sockets:
            self._loop.remove_reader(sock)
        readers = None
        while readers != [] or len(asyncio.all_tasks()) > 1:
            readers = list(self._readers)
            for writer in readers:
                writer.transport.abort()
            await asyncio.sleep(0.01)
        for server in servers:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        self._readers[writer] = peer[0] if peer else ""
        self._make_room()
        # It left, was too slow, had to make room, or sends what is no request.
        dropped = (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)
        try:
            with contextlib.suppress(*dropped):
                async with asyncio.timeout(_MAX_READER_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._respond(head.decode("latin-1")))
                    writer.close()
                    await writer.wait_closed()
        finally:
            self._readers.pop(writer, None)
            writer.transport.abort()

    def _make_room(self) -> None:
        if len(self._readers) <= _MAX_READERS:
            return
        [(address, _)] = Counter(self._readers.values()).most_common(1)
        oldest = next(writer for writer, its in self._readers.items() if its == address)
        del self._readers[oldest]
        oldest.transport.abort()

    def _respond(self, head: str) -> bytes:
        """Return the reply to the head of a request. A body is not read."""
        first, _, rest = head.partition("\r\n")
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _reply("400 Bad Request", [], b"", sends_body=True)
        method, target, _ = words
        path, _, query = target.partition("?")
        fields = [line.partition(":") for line in rest.splitlines()]
        headers = Headers([(name.strip(), value.strip()) for name, _, value in fields])
        environ = {
            "REQUEST_METHOD": "GET" if method == "HEAD" else method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "HTTP_ACCEPT": headers["Accept"],
            "HTTP_ACCEPT_ENCODING": headers["Accept-Encoding"],
        }
        start: list[Any] = []
        try:
            body = b"".join(self._application(environ, lambda *started: start.extend(started)))
        except Exception:  # noqa: BLE001 - readers cause no line in the log
            start, body = ["500 Internal Server Error", []], b""
        status, response_headers = start
        return _reply(status, response_headers, body, sends_body=method != "HEAD")


def _reply(status: str, headers: list[tuple[str, str]], body: bytes, *, sends_body: bool) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + (body if sends_body else b"")
