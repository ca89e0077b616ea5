"""Cutting a large call into pieces that each stay under the server's limits."""

from collections.abc import Sequence

from convvae.errors import InvalidInput, Violation
from convvae.inputs import MAX_LISTED, refuse
from convvae.results import Limits

__all__ = ["OVERHEAD_BYTES", "cut", "pieces_in_flight"]

# All of a message that does not grow with its rows: model name, version, precision, shapes, seed.
OVERHEAD_BYTES = 1024
# gRPC's own limit, for a server that states none.
_DEFAULT_MESSAGE_BYTES = 4 << 20


def cut(
    rows: int,
    *,
    request_bytes: int | Sequence[int],
    reply_bytes: int,
    limits: Limits,
    draws: int = 1,
    field: str = "images",
) -> list[range]:
    """Divide `rows` into consecutive ranges, each of at least one row and as large as the limits allow.

    Args:
        rows: Number of rows, 1 or above.
        request_bytes: What a row adds to a request: one number for all, or one for each.
        reply_bytes: What a row adds to a reply.
        limits: The server's.
        draws: Rows that the server counts for one of ours.
        field: Name of the rows, for errors.

    Raises:
        InvalidInput: A single row is above a limit.
    """
    room = (limits.max_message_bytes or _DEFAULT_MESSAGE_BYTES) - OVERHEAD_BYTES
    most = min(limits.max_rows_per_call or rows * draws, limits.max_queued_rows or rows * draws) // draws
    if most < 1:
        raise refuse("num_samples", f"{draws} draws are above the server's limit of rows in one call")
    if reply_bytes * most > room:
        most = room // reply_bytes
    if most < 1:
        raise refuse(
            field, f"the reply to one row has {reply_bytes} bytes; the server's messages end at {room}"
        )
    if isinstance(request_bytes, int):
        if request_bytes > room:
            raise refuse(field, f"one row has {request_bytes} bytes; the server's messages end at {room}")
        if request_bytes:
            most = min(most, room // request_bytes)
        return [range(start, min(start + most, rows)) for start in range(0, rows, most)]
    return _cut_by_size(request_bytes, most=most, room=room, field=field)


def _cut_by_size(sizes: Sequence[int], *, most: int, room: int, field: str) -> list[range]:
    large = [row for row, size in enumerate(sizes) if size > room]
    if large:
        why = f"more than the {room} bytes that the server accepts in one message"
        raise InvalidInput(
            f"{field}[{large[0]}]: {why}",
            violations=[Violation(f"{field}[{row}]", why) for row in large[:MAX_LISTED]],
        )
    pieces = []
    start = used = 0
    for row, size in enumerate(sizes):
        if row - start == most or used + size > room:
            pieces.append(range(start, row))
            start, used = row, 0
        used += size
    pieces.append(range(start, len(sizes)))
    return pieces


def pieces_in_flight(pieces: Sequence[range], *, limits: Limits, draws: int, max_in_flight: int) -> int:
    """Return how many pieces to have in flight, so that a call alone does not fill the server's queue."""
    largest = max(len(piece) for piece in pieces) * draws
    if limits.max_queued_rows:
        return max(1, min(max_in_flight, limits.max_queued_rows // largest))
    return max_in_flight
