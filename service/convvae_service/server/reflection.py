"""gRPC's server reflection: tools such as grpcurl learn the services from it."""

from collections.abc import Iterable

from google.protobuf.descriptor import ServiceDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2

__all__ = ["REFLECTION", "reflection_servicer"]

REFLECTION: ServiceDescriptor = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]


def reflection_servicer(services: Iterable[str]) -> object:
    """Return a servicer that describes these services and reflection itself.

    `reflection.enable_server_reflection` would not do: it expects grpcio's own server class, and adds a
    servicer with threads to any other.
    """
    return reflection.aio.ReflectionServicer([*services, REFLECTION.full_name])
