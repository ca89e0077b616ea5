"""Calls that are small enough to be joined, and the operation on the rows of several."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from convvae.calls.image_operations import Encode, Reconstruct, Score
from convvae.calls.latent_operations import Decode
from convvae.calls.operation import Operation
from convvae.errors import InvalidInput
from convvae.inputs.images import FileImages, PixelImages, join_images

__all__ = ["MAX_BYTES", "MAX_ROWS", "CallKind", "Joinable", "SmallCall", "join", "small_call"]

# Above these a call is sent as usual: its own rows already share the cost of a request. At 32 rows a call,
# 16 callers get no more calls per second from being joined.
MAX_ROWS = 16
MAX_BYTES = 1 << 18

Joinable: TypeAlias = Encode | Decode | Reconstruct | Score


class CallKind(NamedTuple):
    """The properties that calls must share to be joined.

    Attributes:
        method: Name of the RPC.
        has_log_variance: Whether the reply contains the log-variance.
        row_shape: Shape of a row of the input array, or None for files.
    """

    method: str
    has_log_variance: bool
    row_shape: tuple[int, ...] | None


class SmallCall(NamedTuple):
    """An operation that may be joined with others of its kind.

    Attributes:
        operation: The operation. Its files are in memory.
        kind: Its kind.
        rows: Number of its rows.
        num_bytes: Bytes of its rows.
    """

    operation: Joinable
    kind: CallKind
    rows: int
    num_bytes: int


def small_call(operation: Operation[Any]) -> SmallCall | None:
    """Return the operation as a small call, or None if it must be sent alone.

    Draws depend on their seed and on the index of their row, so operations with draws are sent alone. Files
    are read here, because another caller must not wait for them. An operation with a file that cannot be read
    is sent alone, which reports the file.
    """
    shape: tuple[int, ...] | None = None
    if operation.rows > MAX_ROWS or (isinstance(operation, Score) and operation.num_samples):
        return None
    if isinstance(operation, Decode):
        num_bytes, shape = operation.latents.nbytes, operation.latents.shape[1:]
    elif not isinstance(operation, Encode | Reconstruct | Score):
        return None
    elif isinstance(operation.images, PixelImages):
        num_bytes, shape = operation.images.num_bytes, operation.images.array.shape[1:]
    else:
        files = _read_small(operation.images)
        if files is None:
            return None
        operation, num_bytes = replace(operation, images=files), files.num_bytes
    if num_bytes > MAX_BYTES:
        return None
    has_log_variance = isinstance(operation, Encode) and operation.include_log_variance
    kind = CallKind(operation.method, has_log_variance, shape)
    return SmallCall(operation, kind, operation.rows, num_bytes)


def _read_small(files: FileImages) -> FileImages | None:
    try:
        return files.in_memory() if files.num_bytes <= MAX_BYTES else None
    except InvalidInput:
        return None


def join(operations: Sequence[Joinable]) -> Joinable:
    """Return one operation on the rows of all `operations`, which are of one kind, in their order."""
    first = operations[0]
    if isinstance(first, Decode):
        return Decode(np.concatenate([each.latents for each in operations if isinstance(each, Decode)]))
    images = join_images([each.images for each in operations if not isinstance(each, Decode)])
    # Without draws, the seed and the first row of a score have no meaning.
    return Score(images) if isinstance(first, Score) else replace(first, images=images)
