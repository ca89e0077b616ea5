"""Golden vectors over the wire: what a seed gave once, a server of every later version gives."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from convvae.v1 import vae_pb2 as pb
from convvae.v1 import vae_pb2_grpc
from convvae_service.api.noise import MAX_SEED
from support.serving import ServerProcess, serving
from support.wire import TIMEOUT_S, pixels, stub_of, unpack, unpack_pixels

GOLDEN = Path(__file__).parents[1] / "golden" / "schema-1"
# Logarithms of float32 probabilities; another draw is off by far more.
SCORE_RTOL = 1e-3

# (count, seed, first row, temperature): rows as little-endian float32 in hexadecimal. They never change: a
# seed that a user has written down must give the same latents from every later version.
GOLDEN_ROWS = {
    (2, 0, 0, 1.0): "b256223e7fe73e40137df6bf522e53bf 055d4fbe15f0933f9110a93ea66dedbc",
    (2, 7, 0, 1.0): "b4a816be6c8a003f33a98bbf81d23c3f c2053cbfbce306c0580a91bf462b89bf",
    (1, 123456789, 1000, 0.5): "b404b7bfb8bdcabeb462ad3ee077903e",
    (2, MAX_SEED, MAX_SEED - 1, 1.0): "933c10bfd7b25f3f9613703dd3615e3e 8800f93e3668d33df21ed03f7dd3de3f",
}
GOLDEN_SIX = (
    "b4a816be6c8a003f33a98bbf81d23c3fc2053cbfbce306c0 c08d2b3fe1d735c0ac3f16bff2b2fdbd0620373f2a8587bf"
)
# (draws, seed, first row): distortions of the golden images, in nats.
GOLDEN_SCORES = {
    (0, 0, 0): [38.860847, 36.738411, 36.570686, 34.307049, 38.418842],
    (3, 7, 0): [72.826538, 49.633450, 69.738266, 54.638100, 47.561481],
    (2, MAX_SEED, MAX_SEED - 4): [58.500633, 38.160858, 43.518417, 62.320900, 44.725281],
}


@pytest.fixture(scope="module")
def golden(front: str) -> Iterator[vae_pb2_grpc.VaeServiceStub]:
    """A server of the bundle of schema version 1 that is checked in."""
    with serving(GOLDEN, "--front", front) as server, stub_of(server.target) as stub:
        yield stub


@pytest.mark.parametrize("case", GOLDEN_ROWS)
def test_golden_rows(golden: vae_pb2_grpc.VaeServiceStub, case: tuple[int, int, int, float]) -> None:
    """A server of any version gives a seed the latents that it has always given."""
    count, seed, first_row, temperature = case
    request = pb.SampleRequest(count=count, seed=seed, first_row=first_row, temperature=temperature)
    reply = golden.Sample(request, timeout=TIMEOUT_S)
    assert reply.latents.data.hex() == GOLDEN_ROWS[case].replace(" ", "")
    if temperature == 1:
        bare = pb.SampleRequest(count=count, seed=seed, first_row=first_row)
        assert golden.Sample(bare, timeout=TIMEOUT_S).latents == reply.latents


def test_golden_rows_of_a_dimension_that_four_does_not_divide(zoo_server: ServerProcess) -> None:
    """Rows of six values take two blocks of draws each, of which the last two draws go unused."""
    request = pb.SampleRequest(model=pb.ModelRef(name="colour"), count=2, seed=7)
    with stub_of(zoo_server.target) as stub:
        reply = stub.Sample(request, timeout=TIMEOUT_S)
    assert reply.latents.data.hex() == GOLDEN_SIX.replace(" ", "")


def test_golden_answers(golden: vae_pb2_grpc.VaeServiceStub) -> None:
    """The golden bundle gives, over the wire, the answers that were kept when it was made."""
    kept = np.load(GOLDEN / "answers.npz", allow_pickle=False)
    drawn = golden.Sample(pb.SampleRequest(count=4, seed=7), timeout=TIMEOUT_S)
    np.testing.assert_array_equal(unpack(drawn.latents), kept["latents"])
    assert np.abs(unpack_pixels(drawn.images).astype(int) - kept["decoded"]).max() <= 1
    request = pb.EncodeRequest(pixels=pixels(kept["images"]), include_log_variance=True)
    encoding = golden.Encode(request, timeout=TIMEOUT_S)
    np.testing.assert_allclose(unpack(encoding.mean), kept["mean"], atol=1e-5)
    np.testing.assert_allclose(unpack(encoding.log_variance), kept["log_variance"], atol=1e-5)


@pytest.mark.parametrize("case", GOLDEN_SCORES)
def test_golden_scores(golden: vae_pb2_grpc.VaeServiceStub, case: tuple[int, int, int]) -> None:
    """A seed gives an image the draws, and so the score, that it has always given."""
    draws, seed, first_row = case
    images = np.load(GOLDEN / "answers.npz", allow_pickle=False)["images"]
    reply = golden.Score(
        pb.ScoreRequest(pixels=pixels(images), num_samples=draws, seed=seed, first_row=first_row),
        timeout=TIMEOUT_S,
    )
    np.testing.assert_allclose(reply.distortion, GOLDEN_SCORES[case], rtol=SCORE_RTOL)
