"""Seeds over the wire: a row is what its seed and its index make it, whatever else goes on.

Latents are compared bit by bit, images within one step of 255, scores within a thousandth: they hold
logarithms of float32 probabilities, of which those near 1 have few digits. Another draw is off by far more.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convvae import Client
from convvae.v1 import vae_pb2 as pb
from convvae.v1 import vae_pb2_grpc
from convvae_service.api.noise import MAX_SEED, latent_noise
from convvae_service.bundle import rate
from open_inference import inference_pb2
from support.inference_wire import inference_stub
from support.reference_rows import decoded, encoded, reference_distortion, reference_latents, within_a_step
from support.serving import serving
from support.tiny_bundle import LATENT_DIM, SHAPE
from support.wire import TIMEOUT_S, pixels, random_images, stub_of, unpack, unpack_pixels, vectors

POOL = random_images(64, *SHAPE.as_tuple)
SCORE_RTOL = 1e-3

# Calls meet in batches of 7 rows on two lanes, which wait a moment for each other.
CROWDED = ("--max-batch-rows", "7", "--lanes", "2", "--threads", "1", "--max-queue-delay-us", "1000")
OTHER_SETTINGS = {
    "the same": CROWDED,
    "one row at a time": ("--max-batch-rows", "1"),
    "three lanes of two threads": ("--max-batch-rows", "5", "--lanes", "3", "--threads", "2"),
    "everything at once": ("--max-batch-rows", "4096", "--max-queue-delay-us", "5000"),
}


@pytest.fixture(scope="module")
def crowded(tiny_root: Path, front: str) -> Iterator[vae_pb2_grpc.VaeServiceStub]:
    with serving(tiny_root, *CROWDED, "--front", front) as server, stub_of(server.target) as stub:
        yield stub


seeds = st.sampled_from([0, 7, 2**53, MAX_SEED]) | st.integers(0, MAX_SEED)
temperatures = st.none() | st.sampled_from([0.0, 1.0, 0.5, 1e6]) | st.floats(0, 4, width=32)
first_rows = st.sampled_from([0, 1, 2**32 - 3, 2**63]) | st.integers(0, 5000)
some_images = st.tuples(st.integers(0, 40), st.integers(1, 20)).map(lambda t: POOL[t[0] : sum(t)])


@dataclass(frozen=True)
class Call:
    """A request, and how to tell whether a reply is its own."""

    method: str
    request: Any
    check: Callable[[Any], None]


@st.composite
def samples(draw: st.DrawFn) -> Call:
    request = pb.SampleRequest(
        count=draw(st.integers(1, 40)),
        seed=draw(seeds),
        first_row=draw(first_rows),
        temperature=draw(temperatures),
    )

    def check(reply: pb.SampleResponse) -> None:
        latents = reference_latents(request)
        assert reply.latents.data == latents.astype("<f4").tobytes()
        assert reply.seed == request.seed
        assert within_a_step(unpack_pixels(reply.images), decoded(latents) * 255)

    return Call("Sample", request, check)


@st.composite
def scores(draw: st.DrawFn) -> Call:
    images = draw(some_images)
    request = pb.ScoreRequest(
        pixels=pixels(images),
        num_samples=draw(st.integers(0, 5)),
        seed=draw(seeds),
        first_row=draw(first_rows),
    )

    def check(reply: pb.ScoreResponse) -> None:
        rates = rate(*encoded(images))
        expected = reference_distortion(images, request)
        np.testing.assert_allclose(reply.distortion, expected, rtol=SCORE_RTOL)
        np.testing.assert_allclose(reply.rate, rates, rtol=1e-5)
        np.testing.assert_allclose(reply.elbo, -(expected + rates), rtol=SCORE_RTOL)
        assert reply.HasField("seed") == bool(request.num_samples)
        assert reply.seed == (request.seed if request.num_samples else 0)

    return Call("Score", request, check)


@st.composite
def other_calls(draw: st.DrawFn) -> Call:
    images = draw(some_images)
    method = draw(st.sampled_from(["Encode", "Decode", "Reconstruct"]))
    if method == "Decode":
        latents = latent_noise(draw(st.integers(0, 9)), first_row=0, count=len(images), dimension=LATENT_DIM)

        def check_decoded(reply: pb.DecodeResponse) -> None:
            assert within_a_step(unpack_pixels(reply.images), decoded(latents) * 255)

        return Call(method, pb.DecodeRequest(latents=vectors(latents)), check_decoded)
    mean, _ = encoded(images)
    if method == "Encode":

        def check_encoded(reply: pb.EncodeResponse) -> None:
            np.testing.assert_allclose(unpack(reply.mean), mean, atol=1e-5)

        return Call(method, pb.EncodeRequest(pixels=pixels(images)), check_encoded)

    def check_reconstructed(reply: pb.ReconstructResponse) -> None:
        assert within_a_step(unpack_pixels(reply.images), decoded(mean) * 255)

    return Call(method, pb.ReconstructRequest(pixels=pixels(images)), check_reconstructed)


@settings(max_examples=40, deadline=None)
@given(calls=st.lists(samples() | scores() | other_calls(), min_size=2, max_size=10))
def test_rows_depend_on_their_seed_and_index_alone(
    crowded: vae_pb2_grpc.VaeServiceStub, calls: list[Call]
) -> None:
    """Whatever calls are under way together, each has the rows that it would have alone."""
    futures = [getattr(crowded, call.method).future(call.request, timeout=TIMEOUT_S) for call in calls]
    for call, future in zip(calls, futures, strict=True):
        call.check(future.result())


@pytest.mark.usefixtures("each_front")
def test_samples_of_one_batch_do_not_mix(tiny_root: Path) -> None:
    """Three samples that are known to have been decoded in one run have the rows of their own seeds."""
    requests = [
        pb.SampleRequest(count=3, seed=1),
        pb.SampleRequest(count=4, seed=1, first_row=2, temperature=2.0),
        pb.SampleRequest(count=5, seed=9),
    ]
    flags = ("--max-batch-rows", "12", "--max-queue-delay-us", "5000000")
    with serving(tiny_root, *flags) as server, stub_of(server.target) as stub:
        futures = [stub.Sample.future(request, timeout=TIMEOUT_S) for request in requests]
        replies = [future.result() for future in futures]
        with inference_stub(server.target) as inference:
            asked = inference_pb2.ModelStatisticsRequest(name="tiny.decoder")
            (statistics,) = inference.ModelStatistics(asked, timeout=TIMEOUT_S).model_stats
    assert [(b.batch_size, b.compute_infer.count) for b in statistics.batch_stats] == [(12, 1)]
    for request, reply in zip(requests, replies, strict=True):
        latents = reference_latents(request)
        np.testing.assert_array_equal(unpack(reply.latents), latents)
        assert within_a_step(unpack_pixels(reply.images), decoded(latents) * 255)


@settings(max_examples=25, deadline=None)
@given(
    seed=seeds,
    first_row=first_rows,
    count=st.integers(1, 90),
    cuts=st.sets(st.integers(1, 89), max_size=6),
    temperature=temperatures,
)
def test_pieces_by_first_row_make_up_the_whole(
    crowded: vae_pb2_grpc.VaeServiceStub,
    seed: int,
    first_row: int,
    count: int,
    cuts: set[int],
    temperature: float | None,
) -> None:
    """A sample that is cut anywhere, its pieces under way together, is the sample of one call."""
    edges = [0, *sorted(cut for cut in cuts if cut < count), count]

    def send(start: int, stop: int) -> Any:
        request = pb.SampleRequest(
            count=stop - start, seed=seed, first_row=first_row + start, temperature=temperature
        )
        return crowded.Sample.future(request, timeout=TIMEOUT_S)

    pieces = [send(start, stop) for start, stop in pairwise(edges)]
    whole = send(0, count).result()
    assert b"".join(piece.result().latents.data for piece in pieces) == whole.latents.data
    images = np.concatenate([unpack_pixels(piece.result().images) for piece in pieces])
    assert within_a_step(images, unpack_pixels(whole.images))


@settings(max_examples=15, deadline=None)
@given(seed=seeds, first_row=first_rows, counts=st.lists(st.integers(1, 200), min_size=2, max_size=5))
def test_a_smaller_call_is_a_prefix_of_a_larger_one(
    crowded: vae_pb2_grpc.VaeServiceStub, seed: int, first_row: int, counts: list[int]
) -> None:
    """How many rows a caller asks for changes none of them."""
    requests = [pb.SampleRequest(count=count, seed=seed, first_row=first_row) for count in counts]
    futures = [crowded.Sample.future(request, timeout=TIMEOUT_S) for request in requests]
    replies = sorted((future.result() for future in futures), key=lambda reply: reply.latents.count)
    largest = replies[-1]
    for reply in replies:
        assert largest.latents.data.startswith(reply.latents.data)
        head = unpack_pixels(largest.images)[: reply.images.count]
        assert within_a_step(unpack_pixels(reply.images), head)


@settings(max_examples=15, deadline=None)
@given(
    seed=seeds,
    first_row=first_rows,
    count=st.integers(2, 40),
    draws=st.integers(1, 4),
    cut=st.integers(1, 39),
)
def test_scores_can_be_cut_by_first_row(
    crowded: vae_pb2_grpc.VaeServiceStub, seed: int, first_row: int, count: int, draws: int, cut: int
) -> None:
    """An image's draws follow from the seed and its index, not from the images before it in the call."""
    cut = min(cut, count - 1)

    def send(start: int, stop: int) -> Any:
        request = pb.ScoreRequest(
            pixels=pixels(POOL[start:stop]), num_samples=draws, seed=seed, first_row=first_row + start
        )
        return crowded.Score.future(request, timeout=TIMEOUT_S)

    parts = [send(0, count), send(0, cut), send(cut, count)]
    whole, head, tail = (list(part.result().distortion) for part in parts)
    np.testing.assert_allclose(head + tail, whole, rtol=SCORE_RTOL)


def answers(stub: vae_pb2_grpc.VaeServiceStub) -> tuple[list[pb.SampleResponse], list[pb.ScoreResponse]]:
    """Return the replies to some calls, all under way at the same time."""
    drawn = [
        stub.Sample.future(pb.SampleRequest(count=count, seed=seed, temperature=0.7), timeout=TIMEOUT_S)
        for count, seed in ((1, 0), (33, 7), (200, MAX_SEED))
    ]
    scored = [
        stub.Score.future(
            pb.ScoreRequest(pixels=pixels(POOL), num_samples=draws, seed=5, first_row=2), timeout=TIMEOUT_S
        )
        for draws in (0, 1, 3)
    ]
    return [future.result() for future in drawn], [future.result() for future in scored]


@pytest.mark.usefixtures("each_front")
@pytest.mark.parametrize("other", OTHER_SETTINGS)
def test_a_restart_and_other_settings_change_nothing(
    crowded: vae_pb2_grpc.VaeServiceStub, tiny_root: Path, other: str
) -> None:
    """Another process, with other batches, lanes and threads, gives the rows of the first."""
    samples_before, scores_before = answers(crowded)
    with serving(tiny_root, *OTHER_SETTINGS[other]) as server, stub_of(server.target) as stub:
        samples_after, scores_after = answers(stub)
    for before, after in zip(samples_before, samples_after, strict=True):
        assert after.latents == before.latents
        assert within_a_step(unpack_pixels(after.images), unpack_pixels(before.images))
    for one, two in zip(scores_before, scores_after, strict=True):
        for name in ("elbo", "distortion", "rate"):
            np.testing.assert_allclose(getattr(two, name), getattr(one, name), rtol=SCORE_RTOL)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, count=st.integers(1, 150), first_row=first_rows, draws=st.integers(1, 3))
def test_the_client_that_cuts_calls_gives_what_one_call_gives(
    crowded: vae_pb2_grpc.VaeServiceStub,
    small_calls: Client,
    seed: int,
    count: int,
    first_row: int,
    draws: int,
) -> None:
    """A sample or score of more rows than the server takes at once equals that of a server that takes all."""
    request = pb.SampleRequest(count=count, seed=seed, first_row=first_row, temperature=0.5)
    whole = crowded.Sample(request, timeout=TIMEOUT_S)
    cut = small_calls.sample(count, seed=seed, first_row=first_row, temperature=0.5)
    np.testing.assert_array_equal(cut.latents, unpack(whole.latents))
    assert within_a_step(cut.images, unpack_pixels(whole.images))
    scored = crowded.Score(
        pb.ScoreRequest(pixels=pixels(POOL), num_samples=draws, seed=seed, first_row=first_row),
        timeout=TIMEOUT_S,
    )
    pieces = small_calls.score(POOL, num_samples=draws, seed=seed, first_row=first_row)
    np.testing.assert_allclose(pieces.distortion, scored.distortion, rtol=SCORE_RTOL)
    assert (cut.seed, pieces.seed) == (seed, seed)


@pytest.fixture(scope="module")
def small_calls(tiny_root: Path, front: str) -> Iterator[Client]:
    """A client of a server that takes 16 rows a call."""
    with ExitStack() as stack:
        server = stack.enter_context(serving(tiny_root, "--max-rows-per-call", "16", "--front", front))
        yield stack.enter_context(Client(server.target))


def test_a_cut_sample_without_a_seed_can_be_repeated(
    crowded: vae_pb2_grpc.VaeServiceStub, small_calls: Client
) -> None:
    """All pieces share the one seed that the result names."""
    drawn = small_calls.sample(50)
    whole = crowded.Sample(pb.SampleRequest(count=50, seed=drawn.seed), timeout=TIMEOUT_S)
    np.testing.assert_array_equal(drawn.latents, unpack(whole.latents))
    scored = small_calls.score(POOL, num_samples=2)
    again = small_calls.score(POOL, num_samples=2, seed=scored.seed)
    np.testing.assert_allclose(again.distortion, scored.distortion, rtol=SCORE_RTOL)
