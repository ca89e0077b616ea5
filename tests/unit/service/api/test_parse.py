from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from convvae.v1 import vae_pb2 as pb
from convvae_service.api.limits import CallLimits
from convvae_service.api.parse import read_images, read_latents, read_sample, read_score
from convvae_service.bundle import ImageShape, Resize
from convvae_service.errors import InvalidInput
from convvae_service.images import DecodingThreads

SHAPE = ImageShape(height=2, width=3, channels=1)
LIMITS = CallLimits(max_rows=4, max_message_bytes=200, max_pixels_per_file=100, row_bytes=1)

small = st.integers(-2, 7)
pixels = st.builds(
    pb.Pixels, data=st.binary(max_size=40), count=small, height=small, width=small, channels=small
)
fitting_pixels = st.integers(-1, 5).flatmap(
    lambda count: st.builds(
        pb.Pixels,
        data=st.binary(min_size=max(0, 6 * count), max_size=max(0, 6 * count) + 1),
        count=st.just(count),
        height=st.just(2),
        width=st.just(3),
        channels=st.just(1),
    )
)
requests = st.builds(
    pb.EncodeRequest,
    pixels=st.none() | pixels | fitting_pixels,
    files=st.lists(st.binary(max_size=80), max_size=5),
)


@settings(max_examples=300)
@given(requests)
def test_images_are_rows_or_refused(request: pb.EncodeRequest) -> None:
    """A request's images come out as rows within the limits, or every fault names a field."""
    try:
        rows = read_images(request, shape=SHAPE, limits=LIMITS)
    except InvalidInput as error:
        assert all(v.field and v.description for v in error.violations)  # noqa: PT017
        return
    assert 1 <= len(rows) <= LIMITS.max_rows
    if rows.pixels is not None:
        assert rows.pixels.shape[1:] == SHAPE.as_tuple


@settings(max_examples=50, deadline=None)
@given(files=st.lists(st.binary(max_size=60), min_size=1, max_size=4))
def test_files_are_pixels_or_refused_by_index(
    files: list[bytes], run_to_end: Callable[[Coroutine[Any, Any, Any]], Any]
) -> None:
    """Bytes that are no images are refused, each by its own index."""
    rows = read_images(pb.EncodeRequest(files=files), shape=SHAPE, limits=LIMITS)
    with ThreadPoolExecutor(2) as executor:
        threads = DecodingThreads(executor, max_large=1, max_bytes=1)
        decoding = rows.decode(resize=Resize(), max_pixels=100, threads=threads, at_once=2)
        try:
            images = run_to_end(decoding)
        except InvalidInput as error:
            assert {v.field for v in error.violations} <= {f"files[{i}]" for i in range(len(files))}  # noqa: PT017
        else:
            assert images.shape == (len(files), *SHAPE.as_tuple)


@given(
    st.builds(pb.Vectors, data=st.binary(max_size=48), count=small, dimension=st.sampled_from([0, 2, 2, 3]))
)
def test_latents_are_finite_rows_or_refused(vectors: pb.Vectors) -> None:
    """Latents come out finite and of the model's dimension, or every fault names a field."""
    try:
        latents = read_latents(vectors, dimension=2, limits=LIMITS)
    except InvalidInput as error:
        assert all(v.field.startswith("latents") for v in error.violations)  # noqa: PT017
        return
    assert latents.shape == (vectors.count, 2)
    assert np.isfinite(latents).all()


@given(
    st.builds(
        pb.SampleRequest,
        count=small,
        temperature=st.none() | st.floats(width=32),
        first_row=st.integers(0, 2**64 - 1),
    )
)
def test_samples_are_sound_or_refused(request: pb.SampleRequest) -> None:
    """A sample's count and temperature come out usable, or the fault names its field."""
    try:
        count, temperature = read_sample(request, limits=LIMITS)
    except InvalidInput as error:
        assert error.violations[0].field in {"count", "temperature", "first_row"}  # noqa: PT017
        return
    assert 1 <= count <= LIMITS.max_rows
    assert 0 <= temperature < np.inf
    assert request.first_row + count <= 2**64


@given(st.integers(-(2**31), 2**31 - 1), st.integers(1, 4), st.integers(0, 2**64 - 1))
def test_draws_are_within_the_rows_of_a_call(draws: int, rows: int, first_row: int) -> None:
    """Rows times draws stay within the limit, or the fault names its field."""
    request = pb.ScoreRequest(num_samples=draws, first_row=first_row)
    try:
        accepted = read_score(request, rows=rows, limits=LIMITS)
    except InvalidInput as error:
        assert error.violations[0].field in {"num_samples", "first_row"}  # noqa: PT017
        return
    assert 0 <= accepted * rows <= LIMITS.max_rows


@settings(max_examples=300)
@given(st.binary(max_size=120))
def test_bytes_that_parse_are_refused_or_read(data: bytes) -> None:
    """Whatever protobuf accepts as a request is rows or `InvalidInput`."""
    try:
        request = pb.EncodeRequest.FromString(data)
    except DecodeError:
        return
    try:
        rows = read_images(request, shape=SHAPE, limits=LIMITS)
    except InvalidInput:
        return
    assert len(rows) >= 1
