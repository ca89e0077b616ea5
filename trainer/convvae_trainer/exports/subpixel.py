"""Transposed convolutions as sub-pixel convolutions (Shi et al. 2016), which give the same result.

ONNX Runtime has no 8-bit kernel for a transposed convolution, but it has one for a convolution.

A transposed convolution of stride s and a kernel of s·m taps makes s x s pixels of each place in its input.
A convolution of m taps with full padding makes the same values as s·s groups of channels; moving the groups
to their places makes the image, and the padding of the transposed convolution is then cut off its border.

B = batch, C = channels, H and W = height and width, kh and kw = taps of the kernel.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from convvae_trainer.exports.rewrite import Rewrite, attributes_of

__all__ = ["with_subpixel_convolutions"]

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Geometry:
    """The geometry of a transposed convolution along (height, width)."""

    size: Pair
    kernel: Pair
    stride: Pair
    cut_before: Pair
    output_size: Pair

    @property
    def taps(self) -> Pair:
        """Taps of the convolution: those of the kernel that meet one output pixel, rounded up."""
        return -(-self.kernel[0] // self.stride[0]), -(-self.kernel[1] // self.stride[1])


def with_subpixel_convolutions(model: ModelProto) -> ModelProto:
    """Return the graph with each transposed convolution replaced. Those of several groups are kept."""
    rewrite = Rewrite(model)
    for node in rewrite.nodes:
        geometry = _geometry(rewrite, node) if node.op_type == "ConvTranspose" else None
        if geometry is None:
            rewrite.keep(node)
        else:
            _replace(rewrite, node, geometry)
    return rewrite.result()


def _geometry(rewrite: Rewrite, node: NodeProto) -> _Geometry | None:
    """Return the geometry of a node; None if this module does not cover it."""
    attributes = attributes_of(node)
    size, output_size = rewrite.shape(node.input[0])[2:], rewrite.shape(node.output[0])[2:]
    is_plain = attributes.get("group", 1) == 1 and set(attributes.get("dilations", [1])) == {1}
    if not is_plain or len(size) != 2 or 0 in (*size, *output_size) or node.input[1] not in rewrite.weights:
        return None
    kernel, stride = rewrite.weights[node.input[1]].shape[2:], attributes.get("strides", [1, 1])
    pads = attributes.get("pads", [0] * 4)
    if min(pads) < 0 or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    geometry = _Geometry(
        size=(size[0], size[1]),
        kernel=(kernel[0], kernel[1]),
        stride=(stride[0], stride[1]),
        cut_before=(pads[0], pads[1]),
        output_size=(output_size[0], output_size[1]),
    )
    # Output padding can ask for pixels that no tap reaches.
    is_covered = all(
        geometry.cut_before[axis] + output_size[axis] <= (size[axis] + geometry.taps[axis] - 1) * stride[axis]
        for axis in (0, 1)
    )
    return geometry if is_covered else None


def _replace(rewrite: Rewrite, node: NodeProto, geometry: _Geometry) -> None:
    weight = rewrite.weights[node.input[1]]
    channels = weight.shape[1]
    bias = rewrite.weights[node.input[2]] if len(node.input) > 2 else np.zeros(channels, np.float32)
    (stride_h, stride_w), (taps_h, taps_w) = geometry.stride, geometry.taps
    grouped = rewrite.add(
        "Conv",
        node.input[0],
        rewrite.constant(_convolution_weight(weight, geometry)),
        rewrite.constant(np.tile(bias, stride_h * stride_w)),
        kernel_shape=[taps_h, taps_w],
        pads=[taps_h - 1, taps_w - 1, taps_h - 1, taps_w - 1],
        strides=[1, 1],
    )
    # Channels last: the two groups of neighbours along the width are then neighbours in memory, and ONNX
    # Runtime's 8-bit convolutions have this order themselves, so that the transpositions here cancel theirs.
    height, width = geometry.size[0] + taps_h - 1, geometry.size[1] + taps_w - 1
    last = rewrite.add("Transpose", grouped, perm=[0, 2, 3, 1])
    rows = rewrite.add("Reshape", last, rewrite.constant([-1, height, width, stride_h, stride_w * channels]))
    woven = rewrite.add("Transpose", rows, perm=[0, 1, 3, 2, 4])
    whole = rewrite.add(
        "Reshape", woven, rewrite.constant([-1, height * stride_h, width * stride_w, channels])
    )
    ends = [start + length for start, length in zip(geometry.cut_before, geometry.output_size, strict=True)]
    cut = rewrite.add(
        "Slice",
        whole,
        rewrite.constant(geometry.cut_before),
        rewrite.constant(ends),
        rewrite.constant([1, 2]),
    )
    rewrite.add("Transpose", cut, output=node.output[0], perm=[0, 3, 1, 2])


def _convolution_weight(weight: NDArray[Any], geometry: _Geometry) -> NDArray[Any]:
    """Return the weight of the convolution.

    Args:
        weight: The weight of the transposed convolution, (C of the input, C of the output, kh, kw).
        geometry: Its geometry.

    Returns:
        Shape (stride of the height x stride of the width x C of the output, C of the input, taps, taps).
    """
    (stride_h, stride_w), (taps_h, taps_w) = geometry.stride, geometry.taps
    inputs, outputs, kernel_h, kernel_w = weight.shape
    missing = (taps_h * stride_h - kernel_h, taps_w * stride_w - kernel_w)
    padded = np.pad(weight, ((0, 0), (0, 0), (0, missing[0]), (0, missing[1])))
    split = padded.reshape(inputs, outputs, taps_h, stride_h, taps_w, stride_w)
    # A transposed convolution meets its taps in the opposite order.
    flipped = split[:, :, ::-1, :, ::-1]
    return flipped.transpose(3, 5, 1, 0, 2, 4).reshape(-1, inputs, taps_h, taps_w)
