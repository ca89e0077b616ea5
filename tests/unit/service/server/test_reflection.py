"""Reflection finds every symbol of every service, in both of its versions."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from convvae.v1 import vae_pb2
from convvae_service.server.reflection import REFLECTION_V1, reflection_servicer
from open_inference import inference_pb2

SERVICER: Any = reflection_servicer(["convvae.v1.VaeService"])
Request, Response = reflection_pb2.ServerReflectionRequest, reflection_pb2.ServerReflectionResponse


async def ask(*requests: reflection_pb2.ServerReflectionRequest) -> list[Any]:
    async def stream() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        for request in requests:
            yield request

    return [reply async for reply in SERVICER.ServerReflectionInfo(stream(), None)]


def of_enum(enum: EnumDescriptor) -> Iterator[str]:
    yield enum.full_name
    scope = enum.full_name.rpartition(".")[0]
    for value in enum.values:
        yield f"{scope}.{value.name}"


def of_message(message: Descriptor) -> Iterator[str]:
    yield message.full_name
    for field in message.fields:
        yield field.full_name
    for group in message.oneofs:
        yield group.full_name
    for enum in message.enum_types:
        yield from of_enum(enum)
    for nested in message.nested_types:
        yield from of_message(nested)


def symbols(file: FileDescriptor) -> Iterator[str]:
    """Yield the full name of everything in a file."""
    for message in file.message_types_by_name.values():
        yield from of_message(message)
    for enum in file.enum_types_by_name.values():
        yield from of_enum(enum)
    for service in file.services_by_name.values():
        yield service.full_name
        for method in service.methods:
            yield method.full_name


@pytest.mark.parametrize("module", [vae_pb2, health_pb2, inference_pb2, reflection_pb2])
async def test_every_symbol_is_found(module: Any) -> None:
    """Services, methods, messages, fields, enums and values lead to their file; others do not."""
    names = list(symbols(module.DESCRIPTOR))
    assert any(module.DESCRIPTOR.services_by_name)
    replies = await ask(*(Request(file_containing_symbol=name) for name in names))
    for name, reply in zip(names, replies, strict=True):
        assert reply.HasField("file_descriptor_response"), name
        file = descriptor_pb2.FileDescriptorProto.FromString(
            reply.file_descriptor_response.file_descriptor_proto[0]
        )
        assert file.name == module.DESCRIPTOR.name


@pytest.mark.parametrize(
    "name", ["", "convvae", "convvae.v1", "convvae.v1.VaeService.Nothing", "convvae.v1.Nothing", ".Encode"]
)
async def test_what_is_not_there_is_not_found(name: str) -> None:
    """It is an answer of the stream, which goes on."""
    lost, found = await ask(
        Request(file_containing_symbol=name), Request(file_containing_symbol="convvae.v1.VaeService.Encode")
    )
    assert lost.error_response.error_code == 5
    assert found.HasField("file_descriptor_response")


async def test_version_1_describes_itself() -> None:
    """Its file is complete: a tool builds the service from it, and its messages are those of v1alpha."""
    listed, by_symbol, by_method, by_name = await ask(
        Request(list_services=""),
        Request(file_containing_symbol=REFLECTION_V1),
        Request(file_containing_symbol=f"{REFLECTION_V1}.ServerReflectionInfo"),
        Request(file_by_filename="grpc/reflection/v1/reflection.proto"),
    )
    assert REFLECTION_V1 in [service.name for service in listed.list_services_response.service]
    data = by_symbol.file_descriptor_response.file_descriptor_proto
    assert by_method.file_descriptor_response.file_descriptor_proto == data
    assert by_name.file_descriptor_response.file_descriptor_proto == data
    pool = descriptor_pool.DescriptorPool()
    for each in data:
        pool.AddSerializedFile(each)
    (method,) = pool.FindServiceByName(REFLECTION_V1).methods
    assert method.input_type.full_name == "grpc.reflection.v1.ServerReflectionRequest"
    reply: Any = GetMessageClass(method.output_type).FromString(listed.SerializeToString())
    assert len(reply.list_services_response.service) == len(listed.list_services_response.service)
