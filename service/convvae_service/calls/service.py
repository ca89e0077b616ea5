"""A service as it is given to a front: its methods, without any transport.

A front reads bytes and metadata from the wire, calls these functions, and writes what they return.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from convvae_service.calls.message_limits import MessageLimits
from convvae_service.calls.request_reader import RequestReader
from convvae_service.observability.call import Call

__all__ = [
    "Handler",
    "Method",
    "Probe",
    "ProbeMethod",
    "Service",
    "Stream",
    "StreamHandler",
]

Handler: TypeAlias = Callable[[Any, Call], Coroutine[Any, Any, Any]]
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
class Method:
    """A method with one request and one reply that the `CallRunner` runs.

    Args:
        name: Name in the proto, such as `Encode`.
        path: Path on the wire, such as `/convvae.v1.VaeService/Encode`.
        answer: Answers the bytes of a request with the bytes of the reply, as a handler does with messages.
    """

    name: str
    path: str
    answer: Callable[[bytes, Call], Coroutine[Any, Any, bytes]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeMethod:
    """A method that answers the bytes of a request at once."""

    name: str
    path: str
    answer: Callable[[bytes], bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """The methods of one service, by their names in the proto.

    Args:
        descriptor: The service in the proto, with the types of requests and replies.
        limits: Limits on the message of a request.
        calls: Methods that `CallRunner` runs: limited in time, counted and logged.
        probes: Methods that answer at once, even while the server starts. They are neither counted nor
            logged.
        streams: Methods with many requests and many replies.
    """

    descriptor: ServiceDescriptor
    limits: MessageLimits
    calls: Mapping[str, Handler]
    probes: Mapping[str, Probe] = field(default_factory=dict)
    streams: Mapping[str, StreamHandler] = field(default_factory=dict)

    @property
    def methods(self) -> list[Method]:
        """The calls, with bytes in and bytes out."""
        return [
            Method(name=name, path=self._path(name), answer=partial(_answer, self._reader(name), handle))
            for name, handle in self.calls.items()
        ]

    @property
    def probe_methods(self) -> list[ProbeMethod]:
        """The probes, with bytes in and bytes out."""
        return [
            ProbeMethod(name=name, path=self._path(name), answer=partial(_probe, self._reader(name), probe))
            for name, probe in self.probes.items()
        ]

    def _path(self, name: str) -> str:
        return f"/{self.descriptor.full_name}/{name}"

    def _reader(self, name: str) -> RequestReader:
        method: MethodDescriptor = self.descriptor.methods_by_name[name]
        return RequestReader(GetMessageClass(method.input_type), self.limits)


async def _answer(reader: RequestReader, handle: Handler, data: bytes, call: Call) -> bytes:
    request = reader.read(data)
    # The call may wait for long: the message has all of the bytes, and the handler may drop it.
    del data
    handling = handle(request, call)
    del request
    reply = await handling
    return bytes(reply.SerializeToString())


def _probe(reader: RequestReader, probe: Probe, data: bytes) -> bytes:
    return bytes(probe(reader.read(data)).SerializeToString())
