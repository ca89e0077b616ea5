"""The conversion of a version's fp32 graphs to another precision, which must stay accurate."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import onnx
from numpy.typing import NDArray

from convvae_service.bundle import ROLES, Accuracy, Parity, Precision, Role
from convvae_trainer.errors import ExportFailed
from convvae_trainer.exports.accuracy import Reference, shortfalls
from convvae_trainer.exports.graph_pair import GraphPair
from convvae_trainer.exports.half import halved
from convvae_trainer.exports.pixel_input import with_uint8_pixels
from convvae_trainer.exports.quantized import KeptLayer, quantized
from convvae_trainer.exports.subpixel import with_subpixel_convolutions

__all__ = ["Converted", "to_fp16", "to_int8"]

# The layers that stay in fp32, in the order in which they are tried: the first accurate choice is taken.
KEPT: tuple[tuple[KeptLayer, ...], ...] = ((), ("last",), ("first",), ("first", "last"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """The graphs of a version in another precision.

    Attributes:
        precision: Their precision.
        graphs: ONNX bytes by role.
        accuracy: Their results beside those of fp32, on test images.
        parity: Their largest differences from fp32.
        kept: The layers of each int8 graph that stay in fp32.
        weight_bits: Bits of an int8 weight; None for fp16.
        calibration_images: Training images that gave int8 activations their ranges; None for fp16.
    """

    precision: Precision
    graphs: Mapping[Role, bytes]
    accuracy: Accuracy
    parity: Parity
    kept: Mapping[Role, Sequence[KeptLayer]] = field(default_factory=dict)
    weight_bits: int | None = None
    calibration_images: int | None = None

    @property
    def kept_text(self) -> str:
        """The layers that stay in fp32 as words; "" if there is none."""
        layers = [f"the {layer} layer of the {role}" for role, own in self.kept.items() for layer in own]
        return ", ".join(layers)

    def to_json_object(self) -> dict[str, Any]:
        """Return everything but the graphs themselves as JSON types."""
        return {
            "bytes": {role: len(data) for role, data in self.graphs.items()},
            "accuracy": asdict(self.accuracy),
            "parity": asdict(self.parity),
            "kept_in_fp32": {role: list(layers) for role, layers in self.kept.items()},
            "weight_bits": self.weight_bits,
            "calibration_images": self.calibration_images,
        }


def to_int8(
    graphs: Mapping[Role, bytes],
    inputs: Mapping[Role, Sequence[NDArray[Any]]],
    reference: Reference,
    *,
    weight_bits: int,
) -> Converted:
    """Return int8 graphs. As few layers stay in fp32 as accuracy allows, first in the encoder.

    Args:
        graphs: The fp32 graphs.
        inputs: Batches that give the activations of each graph their ranges.
        reference: The results of the fp32 graphs.
        weight_bits: Bits of a weight, 7 or 8.

    Raises:
        ExportFailed: The graphs are not accurate enough, whatever stays in fp32.
    """
    rewritten = {
        "encoder": with_uint8_pixels(onnx.load_from_string(graphs["encoder"])),
        "decoder": with_subpixel_convolutions(onnx.load_from_string(graphs["decoder"])),
    }
    found, kept = dict(graphs), dict[Role, Sequence[KeptLayer]]()
    for role in ROLES:
        for layers in KEPT:
            kept[role] = layers
            found[role] = quantized(
                rewritten[role],
                inputs[role],
                kept=layers,
                float_output=role == "encoder",
                weight_bits=weight_bits,
            )
            accuracy, pair = _measured(found, "int8", reference)
            if not shortfalls(accuracy):
                break
        _check(accuracy, "int8")
    return Converted(
        precision="int8",
        graphs=found,
        accuracy=accuracy,
        parity=reference.parity(pair),
        kept=kept,
        weight_bits=weight_bits,
        calibration_images=sum(len(batch) for batch in inputs["encoder"]),
    )


def to_fp16(graphs: Mapping[Role, bytes], reference: Reference) -> Converted:
    """Return fp16 graphs. Their accuracy is measured on the CPU, which computes their layers in fp32.

    Args:
        graphs: The fp32 graphs.
        reference: The results of the fp32 graphs.

    Raises:
        ExportFailed: The graphs are not accurate enough.
    """
    found = {role: halved(data) for role, data in graphs.items()}
    accuracy, pair = _measured(found, "fp16", reference)
    _check(accuracy, "fp16")
    return Converted(precision="fp16", graphs=found, accuracy=accuracy, parity=reference.parity(pair))


def _measured(
    graphs: Mapping[Role, bytes], precision: Precision, reference: Reference
) -> tuple[Accuracy, GraphPair]:
    pair = reference.pair.with_graphs(graphs, precision=precision)
    return reference.accuracy(pair), pair


def _check(accuracy: Accuracy, precision: Precision) -> None:
    if found := shortfalls(accuracy):
        raise ExportFailed(
            f"{precision} graphs are not accurate enough on {accuracy.images} test images:"
            f" {'; '.join(found)}; nothing was published"
        )
