"""A caller's connection by the protocol of its request.

gRPC and HTTP/1.1 cost the caller about the same, since neither parses more than the end and the status of a
reply.
"""

from bench.serving.connection import Connection
from bench.serving.grpc_connection import GrpcConnection
from bench.serving.http_connection import HttpConnection
from bench.serving.request import Request

__all__ = ["connect"]


def connect(target: str, request: Request) -> Connection:
    """Return a new connection to HOST:PORT."""
    if request.protocol == "grpc":
        return GrpcConnection(target, request)
    return HttpConnection(target, request)
