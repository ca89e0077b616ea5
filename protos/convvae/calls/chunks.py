"""The rows of a large call, split into chunks that each stay under the server's limits."""

from collections.abc import Sequence

from convvae.errors import InvalidInput, Violation
from convvae.inputs.arguments import MAX_LISTED, refuse
from convvae.results import Limits

__all__ = ["OVERHEAD_BYTES", "chunks_in_flight", "message_room", "split_rows"]

# The part of a message that does not grow with its rows: model name, version, precision, shapes, seed.
OVERHEAD_BYTES = 1024
# gRPC's own limit, used when the server does not state one.
_DEFAULT_MESSAGE_BYTES = 4 << 20


def message_room(limits: Limits) -> int:
    """Return the bytes that the rows of one message may have."""
    return (limits.max_message_bytes or _DEFAULT_MESSAGE_BYTES) - OVERHEAD_BYTES


def split_rows(
    rows: int,
    *,
    request_bytes: int | Sequence[int],
    reply_bytes: int,
    limits: Limits,
    draws: int = 1,
    field: str = "images",
) -> list[range]:
    """Split `rows` into consecutive ranges, each with at least one row and as large as the limits allow.

    Args:
        rows: Number of rows, at least 1.
        request_bytes: Bytes that a row adds to a request: one number for all rows, or one per row.
        reply_bytes: Bytes that a row adds to a reply.
        limits: Limits reported by the server.
        draws: Rows that the server counts for each of these rows.
        field: Name of the rows in error messages.

    Raises:
        InvalidInput: A single row exceeds a limit.
    """
    room = message_room(limits)
    most = min(limits.max_rows_per_call or rows * draws, limits.max_queued_rows or rows * draws) // draws
    if most < 1:
        raise refuse("num_samples", f"{draws} draws exceed the server's limit of rows in one call")
    if reply_bytes * most > room:
        most = room // reply_bytes
    if most < 1:
        raise refuse(field, f"the reply to one row has {reply_bytes} bytes; the server allows {room}")
    if isinstance(request_bytes, int):
        if request_bytes > room:
            raise refuse(field, f"one row has {request_bytes} bytes; the server allows {room} in a message")
        if request_bytes:
            most = min(most, room // request_bytes)
        return [range(start, min(start + most, rows)) for start in range(0, rows, most)]
    return _split_by_size(request_bytes, most=most, room=room, field=field)


def _split_by_size(sizes: Sequence[int], *, most: int, room: int, field: str) -> list[range]:
    large = [row for row, size in enumerate(sizes) if size > room]
    if large:
        why = f"more than the {room} bytes that the server accepts in one message"
        raise InvalidInput(
            f"{field}[{large[0]}]: {why}",
            violations=[Violation(f"{field}[{row}]", why) for row in large[:MAX_LISTED]],
        )
    chunks = []
    start = used = 0
    for row, size in enumerate(sizes):
        if row - start == most or used + size > room:
            chunks.append(range(start, row))
            start, used = row, 0
        used += size
    chunks.append(range(start, len(sizes)))
    return chunks


def chunks_in_flight(chunks: Sequence[range], *, limits: Limits, draws: int, max_in_flight: int) -> int:
    """Return the number of chunks to keep in flight, so that one call does not fill the server's queue."""
    if len(chunks) == 1:
        return 1
    if limits.max_queued_rows:
        largest = max(len(chunk) for chunk in chunks) * draws
        return max(1, min(max_in_flight, limits.max_queued_rows // largest))
    return max_in_flight
