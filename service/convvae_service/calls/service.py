"""A service as it is given to a front: its methods, without any transport.

A front reads requests and metadata from the wire, calls these functions, and writes what they return.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from google.protobuf.descriptor import ServiceDescriptor

from convvae_service.observability.call import Call

__all__ = ["Handler", "Probe", "Service", "Stream", "StreamHandler"]

Handler: TypeAlias = Callable[[Any, Call], Awaitable[Any]]
Probe: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """An open stream of a caller.

    Args:
        request_id: The id of the stream.
        write: Sends one reply; it waits while the caller reads slowly.
        time_left_s: Returns the seconds until the caller's deadline, None without one.
    """

    request_id: str
    write: Callable[[Any], Awaitable[None]]
    time_left_s: Callable[[], float | None]


StreamHandler: TypeAlias = Callable[[AsyncIterator[Any], Stream], Awaitable[None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """The methods of one service, by their names in the proto.

    Args:
        descriptor: The service in the proto, with the types of requests and replies.
        calls: Methods that `CallRunner` runs: limited in time, counted and logged.
        probes: Methods that answer at once, even while the server starts. They are neither counted nor
            logged.
        streams: Methods with many requests and many replies.
    """

    descriptor: ServiceDescriptor
    calls: Mapping[str, Handler]
    probes: Mapping[str, Probe] = field(default_factory=dict)
    streams: Mapping[str, StreamHandler] = field(default_factory=dict)
