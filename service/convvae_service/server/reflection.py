"""gRPC's server reflection: tools such as grpcurl and ghz learn the services from it."""

from collections.abc import Iterable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2

__all__ = ["REFLECTION", "REFLECTION_V1", "reflection_servicer"]

REFLECTION: ServiceDescriptor = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
# The same service and the same messages under their final name, which newer tools try first.
REFLECTION_V1 = REFLECTION.full_name.replace("v1alpha", "v1")


def reflection_servicer(services: Iterable[str]) -> object:
    """Return a servicer of both versions of reflection. It describes these services and reflection itself.

    `reflection.enable_server_reflection` would not do: it expects grpcio's own server class, and adds a
    servicer with threads to any other.
    """
    names = [*services, REFLECTION.full_name, REFLECTION_V1]
    return reflection.aio.ReflectionServicer(names, pool=_Symbols())


class _Symbols:
    """The default pool of descriptors, with version 1 of reflection and with methods by their names."""

    def __init__(self) -> None:
        self._default = descriptor_pool.Default()
        self._own = descriptor_pool.DescriptorPool()
        self._own.Add(_reflection_v1_file())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._default, name)

    def FindFileByName(self, name: str) -> FileDescriptor:  # noqa: N802 - the name in protobuf
        """Return a file. Raises KeyError."""
        try:
            return self._default.FindFileByName(name)
        except KeyError:
            return self._own.FindFileByName(name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802
        """Return the file of a message, field, enum, value, service or method. Raises KeyError."""
        for pool in (self._default, self._own):
            try:
                return pool.FindFileContainingSymbol(symbol)
            except KeyError:
                pass
            # The pool does not find methods.
            service_name, _, method = symbol.rpartition(".")
            try:
                service = pool.FindServiceByName(service_name)
            except KeyError:
                continue
            if method in service.methods_by_name:
                return service.file
        raise KeyError(symbol)


def _reflection_v1_file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    text = text_format.MessageToString(file).replace("grpc.reflection.v1alpha", "grpc.reflection.v1")
    renamed = text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
    renamed.name = "grpc/reflection/v1/reflection.proto"
    return renamed
