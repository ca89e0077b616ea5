"""The parts of an ONNX file that are checked before ONNX Runtime opens it.

A graph can keep its weights in other files (external data), and a runtime would open those files. This
module declares the few fields of onnx.proto that lead to them and to the operators, so that protobuf can read
these fields without the onnx package.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from convvae_service.bundle.errors import BundleError

__all__ = ["read_model", "refuse_external_data"]

# message -> {field: (number, message type)}; numbers from onnx.proto, IR version 10.
_FIELDS = {
    "Model": {"graph": (7, "Graph"), "training_info": (20, "TrainingInfo"), "functions": (25, "Function")},
    "TrainingInfo": {"initialization": (1, "Graph"), "algorithm": (2, "Graph")},
    "Function": {"node": (7, "Node"), "attribute_proto": (11, "Attribute")},
    "Graph": {
        "node": (1, "Node"),
        "initializer": (5, "Tensor"),
        "input": (11, "Value"),
        "sparse_initializer": (15, "SparseTensor"),
    },
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
    "Value": {},
}
_FieldProto = descriptor_pb2.FieldDescriptorProto
# message -> {field: (number, type, is repeated)}. Names are bytes, since nothing says that they are UTF-8.
_PLAIN_FIELDS = {
    "Node": {
        "input": (1, _FieldProto.TYPE_BYTES, True),
        "output": (2, _FieldProto.TYPE_BYTES, True),
        "op_type": (4, _FieldProto.TYPE_BYTES, False),
        "domain": (7, _FieldProto.TYPE_BYTES, False),
    },
    "Attribute": {"ints": (8, _FieldProto.TYPE_INT64, True)},
    "Tensor": {
        "name": (8, _FieldProto.TYPE_BYTES, False),
        "raw_data": (9, _FieldProto.TYPE_BYTES, False),
        "data_location": (14, _FieldProto.TYPE_INT32, False),
    },
    "Value": {"name": (1, _FieldProto.TYPE_BYTES, False)},
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
                label=_FieldProto.LABEL_REPEATED,
                type=_FieldProto.TYPE_MESSAGE,
                type_name=f".onnx_file.{kind}",
            )
        for field_name, (number, type_, is_repeated) in _PLAIN_FIELDS.get(name, {}).items():
            label = _FieldProto.LABEL_REPEATED if is_repeated else _FieldProto.LABEL_OPTIONAL
            message.field.add(name=field_name, number=number, label=label, type=type_)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("onnx_file.Model"))


_Model = _model_class()


def read_model(data: bytes, name: str) -> Any:
    """Return the declared parts of the ONNX bytes `data`. Messages call the file `name`.

    Raises:
        BundleError: The bytes are not an ONNX model.
    """
    try:
        return _Model.FromString(data)
    except DecodeError:
        raise BundleError(f"{name} is not an ONNX model") from None


def refuse_external_data(model: Any, name: str) -> None:
    """Check that a graph keeps every weight inside its file. Messages call the file `name`.

    Raises:
        BundleError: A tensor points to another file.
    """
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
