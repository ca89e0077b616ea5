"""The models of the Open Inference Protocol: the graphs of a version, by name, with their tensors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from convvae_service.bundle import ROLES, VERSION_NAME, Role
from convvae_service.bundle import TensorSpec as ManifestTensor
from convvae_service.engine.stages import Stage
from convvae_service.errors import InvalidInput, Violation
from convvae_service.repository.loaded_version import LoadedVersion

__all__ = ["ITEM_BYTES", "GraphModel", "GraphTensor", "graph_name", "split_name", "version_number"]

_DATATYPES: dict[str, Literal["UINT8", "FP32"]] = {"uint8": "UINT8", "float32": "FP32"}
# Bytes of one value.
ITEM_BYTES = {"UINT8": 1, "FP32": 4}


@dataclass(frozen=True, slots=True)
class GraphTensor:
    """An input or output of a graph. `sizes` are the sizes of one row, without the batch."""

    name: str
    datatype: Literal["UINT8", "FP32"]
    sizes: tuple[int, ...]

    @property
    def row_values(self) -> int:
        """Values in one row."""
        return math.prod(self.sizes)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.row_values * ITEM_BYTES[self.datatype]


@dataclass(frozen=True, slots=True)
class GraphModel:
    """The encoder or decoder of a loaded version. `name` is its name in the protocol, as it was asked for."""

    name: str
    served: LoadedVersion
    role: Role
    input: GraphTensor
    outputs: tuple[GraphTensor, ...]

    @classmethod
    def of(cls, served: LoadedVersion, role: Role, *, name: str = "") -> "GraphModel":
        """Return a graph as the manifest describes it, under the name that was asked for or its own."""
        manifest = served.manifest
        (graph,) = (g for g in manifest.graphs if g.role == role and g.precision == served.engine.precision)
        name = name or graph_name(served.name, role)
        return cls(name, served, role, _tensor(graph.inputs[0]), tuple(map(_tensor, graph.outputs)))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that run this graph."""
        engine = self.served.engine
        return (
            (engine.encode,)
            if self.role == "encoder"
            else (engine.decode, engine.decode_both, engine.distort)
        )

    def row_bytes(self, outputs: Sequence[GraphTensor]) -> int:
        """Return the bytes of one row: its input and these outputs."""
        return self.input.row_bytes + sum(tensor.row_bytes for tensor in outputs)

    def stage_for(self, outputs: Sequence[GraphTensor]) -> tuple[Stage, tuple[str, ...]]:
        """Return the stage that computes these outputs, and the names of all its results."""
        engine = self.served.engine
        if self.role == "encoder":
            return engine.encode, tuple(tensor.name for tensor in self.outputs)
        if any(tensor.name == "pixel_mean" for tensor in outputs):
            return engine.decode_both, ("image", "pixel_mean")
        return engine.decode, ("image",)


def graph_name(model: str, role: Role) -> str:
    """Return the name of a model's graph in the protocol."""
    return f"{model}.{role}"


def split_name(name: str) -> tuple[str, Role]:
    """Return the model and the graph that a name refers to. A model's own name stands for its encoder."""
    model, _, suffix = name.rpartition(".")
    for role in ROLES:
        if model and suffix == role:
            return model, role
    return name, "encoder"


def version_number(text: str, field: str) -> int:
    """Return the version that a text states; 0, the default version, for an empty text.

    Raises:
        InvalidInput: The text is not a version.
    """
    if not text:
        return 0
    if not VERSION_NAME.fullmatch(text):
        raise InvalidInput(
            [Violation(field, f"is {text[:64]!r}, it must be an integer >= 1, or empty for the default")]
        )
    return int(text)


def _tensor(tensor: ManifestTensor) -> GraphTensor:
    sizes = tuple(size for size in tensor.shape[1:] if isinstance(size, int))
    return GraphTensor(tensor.name, _DATATYPES[tensor.dtype], sizes)
