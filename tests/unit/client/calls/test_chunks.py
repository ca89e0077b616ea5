import pytest
from hypothesis import given
from hypothesis import strategies as st

from convvae.calls.chunks import OVERHEAD_BYTES, chunks_in_flight, split_rows
from convvae.errors import InvalidInput
from convvae.results import Limits

ROOM = 100


def limits(rows: int, room: int = ROOM, queued: int = 0) -> Limits:
    return Limits(max_rows_per_call=rows, max_message_bytes=room + OVERHEAD_BYTES, max_queued_rows=queued)


@given(
    rows=st.integers(1, 300),
    most=st.integers(1, 50),
    request_bytes=st.integers(0, ROOM),
    reply_bytes=st.integers(1, ROOM),
    draws=st.integers(1, 5),
)
def test_equal_rows_are_covered_in_order_within_limits(
    rows: int, most: int, request_bytes: int, reply_bytes: int, draws: int
) -> None:
    """Chunks cover every row once, in order, and none exceeds a limit of rows or bytes."""
    bound = limits(most * draws)
    chunks = split_rows(rows, request_bytes=request_bytes, reply_bytes=reply_bytes, limits=bound, draws=draws)
    assert [row for chunk in chunks for row in chunk] == list(range(rows))
    for chunk in chunks:
        assert 1 <= len(chunk) <= most
        assert len(chunk) * max(request_bytes, reply_bytes) <= ROOM
    full = min(most, ROOM // max(request_bytes, reply_bytes))
    assert len(chunks) == -(-rows // full)


@given(sizes=st.lists(st.integers(0, ROOM), min_size=1, max_size=200), most=st.integers(1, 50))
def test_rows_of_different_sizes_are_packed_in_order_within_limits(sizes: list[int], most: int) -> None:
    """Files are packed in order. No chunk exceeds the limits, and none has room for the next file."""
    chunks = split_rows(len(sizes), request_bytes=sizes, reply_bytes=1, limits=limits(most))
    assert [row for chunk in chunks for row in chunk] == list(range(len(sizes)))
    for chunk, following in zip(chunks, [*chunks[1:], None], strict=True):
        used = sum(sizes[row] for row in chunk)
        assert used <= ROOM
        assert len(chunk) <= most
        if following is not None:
            assert len(chunk) == most or used + sizes[following.start] > ROOM


def test_file_above_message_limit_is_named() -> None:
    """Files that are too large for a message are refused, each by its index."""
    with pytest.raises(InvalidInput, match=r"files\[1\]: more than the 100 bytes") as caught:
        split_rows(3, request_bytes=[5, 101, 200], reply_bytes=1, limits=limits(9), field="files")
    assert [violation.field for violation in caught.value.violations] == ["files[1]", "files[2]"]


@pytest.mark.parametrize(
    ("request_bytes", "reply_bytes", "draws", "message"),
    [
        (101, 1, 1, "images: one row has 101 bytes"),
        (1, 101, 1, "images: the reply to one row has 101 bytes"),
        (1, 1, 10, "num_samples: 10 draws"),
    ],
)
def test_single_row_above_a_limit_is_refused(
    request_bytes: int, reply_bytes: int, draws: int, message: str
) -> None:
    """A single row that exceeds a limit cannot be sent, and the error names the limit."""
    with pytest.raises(InvalidInput, match=message):
        split_rows(2, request_bytes=request_bytes, reply_bytes=reply_bytes, limits=limits(9), draws=draws)


def test_limits_that_are_not_stated_do_not_divide() -> None:
    """A server without a limit of rows gets one chunk, under gRPC's own limit of bytes."""
    assert split_rows(10, request_bytes=8, reply_bytes=8, limits=Limits()) == [range(10)]
    assert len(split_rows(2, request_bytes=3 << 20, reply_bytes=8, limits=Limits())) == 2


def test_one_call_does_not_fill_the_queue() -> None:
    """The chunks in flight fit in the server's queue, and there is at least one."""
    chunks = [range(10), range(10, 20), range(20, 25)]
    assert chunks_in_flight(chunks, limits=limits(10), draws=1, max_in_flight=4) == 4
    assert chunks_in_flight(chunks, limits=limits(10, queued=25), draws=1, max_in_flight=4) == 2
    assert chunks_in_flight(chunks, limits=limits(10, queued=25), draws=3, max_in_flight=4) == 1


def test_piece_is_no_larger_than_the_queue() -> None:
    """A call that exceeds the queue is split further than the limit of rows per call requires."""
    assert [
        len(chunk) for chunk in split_rows(10, request_bytes=1, reply_bytes=1, limits=limits(9, queued=4))
    ] == [
        4,
        4,
        2,
    ]
