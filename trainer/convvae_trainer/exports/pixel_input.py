"""The first convolution of an encoder on uint8 pixels: their scale is that of the quantised input.

A convolution of few channels spends its time on moving pixels. Two neighbours of its output are therefore
computed as one place with twice the channels, from blocks of columns. The values are the same.

C = channels, P = pairs of output columns.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from convvae_trainer.exports.rewrite import Rewrite, attributes_of

__all__ = ["PIXELS", "with_uint8_pixels"]

# The name of the float pixels, in 0..1, that enter the first convolution.
PIXELS = "rewritten_pixels"
# More channels than this fill the vectors of a processor anyway.
MAX_CHANNELS = 4
_INPUT_OPERATORS = ["Transpose", "Cast", "Div", "Conv"]


def with_uint8_pixels(model: ModelProto) -> ModelProto:
    """Return the encoder with the pixels' transposition before their conversion to float.

    A graph that does not start as an exported encoder does is returned as it is.
    """
    rewrite = Rewrite(model)
    start = rewrite.nodes[: len(_INPUT_OPERATORS)]
    if [node.op_type for node in start] != _INPUT_OPERATORS or not _is_chain(start):
        return model
    transpose, _, divide, convolution = start
    if not {divide.input[1], *convolution.input[1:]} <= rewrite.weights.keys():
        return model
    scale = np.float32(1) / rewrite.weights[divide.input[1]].astype(np.float32).reshape(())
    image = transpose.input[0]
    blocks = _blocks(rewrite, image, convolution)
    if blocks is not None:
        image = blocks.arrange(rewrite, image)
    image = rewrite.add("Transpose", image, perm=[0, 3, 1, 2])
    zero, scale_name = rewrite.constant(np.array(0, np.uint8)), rewrite.constant(np.array(scale, np.float32))
    rewrite.add("DequantizeLinear", image, scale_name, zero, output=PIXELS)
    if blocks is not None:
        blocks.convolve(rewrite, convolution)
    else:
        convolution.input[0] = PIXELS
        rewrite.keep(convolution)
    for node in rewrite.nodes[len(_INPUT_OPERATORS) :]:
        rewrite.keep(node)
    return rewrite.result()


def _is_chain(nodes: list[NodeProto]) -> bool:
    return all(after.input[0] == before.output[0] for before, after in pairwise(nodes))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Blocks:
    """Blocks of 2 x stride columns: a pair of output columns needs the first `taps` from its own on."""

    height: int
    columns_before: int
    columns_after: int
    columns: int
    channels: int
    taps: int
    pairs: int
    output_height: int

    def arrange(self, rewrite: Rewrite, image: str) -> str:
        """Add the nodes that make each block of columns one column of more channels; return the result."""
        pads = rewrite.constant([0, 0, self.columns_before, 0, 0, 0, self.columns_after, 0])
        padded = rewrite.add("Pad", image, pads)
        num_blocks = self.pairs - 1 + self.taps
        shape = rewrite.constant([-1, self.height, num_blocks, self.columns * self.channels])
        return rewrite.add("Reshape", padded, shape)

    def convolve(self, rewrite: Rewrite, node: NodeProto) -> None:
        """Add the convolution of the blocks, and the nodes that divide each pair of its output columns."""
        weight, bias = (rewrite.weights[name] for name in node.input[1:3])
        stride_h, pads = attributes_of(node)["strides"][0], attributes_of(node).get("pads", [0] * 4)
        pair = rewrite.add(
            "Conv",
            PIXELS,
            rewrite.constant(self._weight(weight)),
            rewrite.constant(np.tile(bias, 2)),
            kernel_shape=[weight.shape[2], self.taps],
            pads=[pads[0], 0, pads[2], 0],
            strides=[stride_h, 1],
        )
        last = rewrite.add("Transpose", pair, perm=[0, 2, 3, 1])
        shape = rewrite.constant([-1, self.output_height, 2 * self.pairs, len(bias)])
        divided = rewrite.add("Reshape", last, shape)
        rewrite.add("Transpose", divided, output=node.output[0], perm=[0, 3, 1, 2])

    def _weight(self, weight: NDArray[Any]) -> NDArray[Any]:
        outputs, channels, height, width = weight.shape
        wide = np.zeros((2, outputs, channels, height, self.taps * self.columns), np.float32)
        stride = self.columns // 2
        for column in (0, 1):
            wide[column, ..., column * stride : column * stride + width] = weight
        split = wide.reshape(2 * outputs, channels, height, self.taps, self.columns)
        return split.transpose(0, 4, 1, 2, 3).reshape(2 * outputs, -1, height, self.taps)


def _blocks(rewrite: Rewrite, image: str, node: NodeProto) -> _Blocks | None:
    """Return the blocks for a convolution; None if it moves by single columns, or gains nothing."""
    attributes = attributes_of(node)
    _, height, width, channels = rewrite.shape(image)
    _, _, output_height, output_width = rewrite.shape(node.output[0])
    stride, (_, before, _, _) = attributes.get("strides", [1, 1])[1], attributes.get("pads", [0] * 4)
    is_plain = attributes.get("group", 1) == 1 and set(attributes.get("dilations", [1])) == {1}
    has_bias = len(node.input) == 3
    if not (is_plain and has_bias and stride == 2 and output_width % 2 == 0 and channels <= MAX_CHANNELS):
        return None
    columns, pairs = 2 * stride, output_width // 2
    taps = -(-(stride + rewrite.weights[node.input[1]].shape[3]) // columns)
    after = (pairs - 1 + taps) * columns - before - width
    if after < 0:
        return None
    return _Blocks(
        height=height,
        columns_before=before,
        columns_after=after,
        columns=columns,
        channels=channels,
        taps=taps,
        pairs=pairs,
        output_height=output_height,
    )
