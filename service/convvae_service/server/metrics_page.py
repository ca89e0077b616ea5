"""The page of metrics, over HTTP."""

import socket
import threading
from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from convvae_service.errors import StartupError
from convvae_service.server.listening import listen, why_not

__all__ = ["MetricsPage"]

# A reader that sends nothing for this time is dropped.
_MAX_SILENCE_S = 10.0
# Readers at the same time, on each address. Others are dropped.
_MAX_READERS = 16


class MetricsPage:
    """Serves a registry over HTTP, in its own threads."""

    def __init__(self, registry: CollectorRegistry, address: str) -> None:
        """Start serving on every address that `address`, HOST:PORT, means.

        Raises:
            StartupError: The address cannot be used.
        """
        try:
            sockets = listen(address)
        except OSError as error:
            raise StartupError(
                f"metrics address {address} cannot be used: {why_not(error)};"
                " choose another with --metrics-address, or 'off'"
            ) from None
        self.port: int = sockets[0].getsockname()[1]
        application = make_wsgi_app(registry)
        self._servers = [_Server(listening, application) for listening in sockets]
        self._threads = [
            threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
            for server in self._servers
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop serving."""
        for server in self._servers:
            # This wakes its thread, which otherwise looks twice a second whether it shall end.
            server.socket.shutdown(socket.SHUT_RDWR)
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()


class _Handler(WSGIRequestHandler):
    timeout = _MAX_SILENCE_S

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Log nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    """A server on a socket that listens already, with a thread for each reader."""

    daemon_threads = True

    def __init__(self, listening: socket.socket, application: Callable[..., Any]) -> None:
        self.address_family = listening.family
        sockaddr = listening.getsockname()
        super().__init__(sockaddr, _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        # `server_bind` would ask the name service for the name of the host.
        self.server_name, self.server_port = sockaddr[:2]
        self.setup_environ()
        self.set_app(application)
        self._free_readers = threading.BoundedSemaphore(_MAX_READERS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, or drop the reader if there are too many."""
        if self._free_readers.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one reader."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free_readers.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing about readers that disconnect."""
