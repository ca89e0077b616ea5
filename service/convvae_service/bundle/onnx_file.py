"""A check of ONNX bytes before ONNX Runtime opens them: all weights must be inside the file.

A graph can keep its weights in other files (external data), and a runtime would open those files. This
module declares the few fields of onnx.proto that lead to them, so that protobuf can read these fields without
the onnx package.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from convvae_service.bundle.errors import BundleError

__all__ = ["refuse_external_data"]

# message -> {field: (number, message type)}; numbers from onnx.proto, IR version 10.
_FIELDS = {
    "Model": {"graph": (7, "Graph"), "training_info": (20, "TrainingInfo"), "functions": (25, "Function")},
    "TrainingInfo": {"initialization": (1, "Graph"), "algorithm": (2, "Graph")},
    "Function": {"node": (7, "Node"), "attribute_proto": (11, "Attribute")},
    "Graph": {"node": (1, "Node"), "initializer": (5, "Tensor"), "sparse_initializer": (15, "SparseTensor")},
    "Node": {"attribute": (5, "Attribute")},
    "Attribute": {
        "t": (5, "Tensor"),
        "g": (6, "Graph"),
        "tensors": (10, "Tensor"),
        "graphs": (11, "Graph"),
        "sparse_tensor": (22, "SparseTensor"),
        "sparse_tensors": (23, "SparseTensor"),
    },
    "SparseTensor": {"values": (1, "Tensor"), "indices": (2, "Tensor")},
    "Tensor": {"external_data": (13, "Entry")},
    "Entry": {},
}


def _model_class() -> type[Message]:
    file = descriptor_pb2.FileDescriptorProto(name="onnx_file.proto", package="onnx_file", syntax="proto2")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            # A repeated field also reads a singular one.
            message.field.add(
                name=field_name,
                number=number,
                label=descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED,
                type=descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
                type_name=f".onnx_file.{kind}",
            )
        if name == "Tensor":
            message.field.add(
                name="data_location",
                number=14,
                label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
                type=descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("onnx_file.Model"))


_Model = _model_class()


def refuse_external_data(data: bytes, name: str) -> None:
    """Check that the graph `data` keeps every weight inside itself. Messages call it `name`.

    Raises:
        BundleError: The bytes are not an ONNX model, or a tensor points to another file.
    """
    try:
        model = _Model.FromString(data)
    except DecodeError:
        raise BundleError(f"{name} is not an ONNX model") from None
    if any(tensor.data_location == 1 or len(tensor.external_data) for tensor in _tensors(model)):
        raise BundleError(f"{name} keeps weights in another file (external data): export it as one file")


def _tensors(message: Any) -> Iterator[Any]:
    kind = message.DESCRIPTOR.name
    if kind == "Tensor":
        yield message
        return
    for field_name in _FIELDS[kind]:
        for child in getattr(message, field_name):
            yield from _tensors(child)
