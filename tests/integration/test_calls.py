"""Each call's answer when all is well, over the wire."""

import time
from pathlib import Path

import numpy as np
import pytest

from convvae.v1 import vae_pb2 as pb
from convvae_service.api.noise import latent_noise
from convvae_service.bundle import distortion, rate
from support.serving import ServerProcess
from support.tiny_bundle import BERNOULLI, LATENT_DIM, SHAPE, publish_tiny, weights
from support.wire import TIMEOUT_S, pixels, png, random_images, stub_of, unpack, unpack_pixels, vectors

IMAGES = random_images(5, *SHAPE.as_tuple)
TINY = pb.ModelRef(name="tiny")


def expected_encoding(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat = images.reshape(len(images), -1).astype(np.float32) / 255
    both = flat @ weights(SHAPE, LATENT_DIM, seed=0)["encode"]
    return both[:, :LATENT_DIM], both[:, LATENT_DIM:]


def expected_mean(latents: np.ndarray) -> np.ndarray:
    logits = latents @ weights(SHAPE, LATENT_DIM, seed=0)["decode"]
    return (1 / (1 + np.exp(-logits))).reshape(-1, *SHAPE.as_tuple).astype(np.float32)


def test_encode(tiny_server: ServerProcess) -> None:
    """Encode gives the encoder's mean, and the log-variance when it is asked for."""
    mean, log_variance = expected_encoding(IMAGES)
    with stub_of(tiny_server.target) as stub:
        bare = stub.Encode(pb.EncodeRequest(pixels=pixels(IMAGES)), timeout=TIMEOUT_S)
        full = stub.Encode(
            pb.EncodeRequest(pixels=pixels(IMAGES), include_log_variance=True), timeout=TIMEOUT_S
        )
    assert (bare.model.name, bare.model.version, bare.model.precision) == ("tiny", 1, "fp32")
    assert not bare.HasField("log_variance")
    np.testing.assert_allclose(unpack(bare.mean), mean, atol=1e-5)
    np.testing.assert_allclose(unpack(full.log_variance), log_variance, atol=1e-5)


def test_encode_files(tiny_server: ServerProcess) -> None:
    """Files are encoded as the pixels they hold."""
    request = pb.EncodeRequest(files=[png(image) for image in IMAGES])
    with stub_of(tiny_server.target) as stub:
        reply = stub.Encode(request, timeout=TIMEOUT_S)
    np.testing.assert_allclose(unpack(reply.mean), expected_encoding(IMAGES)[0], atol=1e-5)


def test_decode(tiny_server: ServerProcess) -> None:
    """Decode gives the rounded mean of p(x|z)."""
    latents = latent_noise(1, first_row=0, count=7, dimension=LATENT_DIM)
    with stub_of(tiny_server.target) as stub:
        reply = stub.Decode(pb.DecodeRequest(latents=vectors(latents)), timeout=TIMEOUT_S)
    assert np.abs(unpack_pixels(reply.images) - expected_mean(latents) * 255).max() <= 0.501


def test_reconstruct(tiny_server: ServerProcess) -> None:
    """Reconstruct decodes the posterior mean."""
    with stub_of(tiny_server.target) as stub:
        reply = stub.Reconstruct(pb.ReconstructRequest(pixels=pixels(IMAGES)), timeout=TIMEOUT_S)
    expected = expected_mean(expected_encoding(IMAGES)[0]) * 255
    assert np.abs(unpack_pixels(reply.images) - expected).max() <= 0.51


def test_sample_is_noise_times_temperature_decoded(tiny_server: ServerProcess) -> None:
    """The latents are the seed's noise, scaled, and the images their decoding."""
    with stub_of(tiny_server.target) as stub:
        request = pb.SampleRequest(count=6, seed=7, temperature=0.5, first_row=3)
        reply = stub.Sample(request, timeout=TIMEOUT_S)
        decoded = stub.Decode(pb.DecodeRequest(latents=reply.latents), timeout=TIMEOUT_S)
    noise = latent_noise(7, first_row=3, count=6, dimension=LATENT_DIM)
    np.testing.assert_array_equal(unpack(reply.latents), noise * np.float32(0.5))
    assert np.abs(unpack_pixels(reply.images).astype(int) - unpack_pixels(decoded.images)).max() <= 1
    assert reply.seed == 7


def test_sample_can_be_cut_into_calls(tiny_server: ServerProcess) -> None:
    """Pieces by `first_row` are the pieces of the whole, and a smaller call is a prefix of a larger one."""
    with stub_of(tiny_server.target) as stub:
        whole = unpack(stub.Sample(pb.SampleRequest(count=20, seed=3), timeout=TIMEOUT_S).latents)
        for first_row, count in ((0, 7), (7, 1), (8, 12)):
            request = pb.SampleRequest(count=count, seed=3, first_row=first_row)
            piece = unpack(stub.Sample(request, timeout=TIMEOUT_S).latents)
            np.testing.assert_array_equal(piece, whole[first_row : first_row + count])


def test_sample_without_a_seed_names_the_one_it_drew(tiny_server: ServerProcess) -> None:
    """The reply's seed, below 2^53, repeats the sample; seed 0 is a seed like any other."""
    with stub_of(tiny_server.target) as stub:
        first = stub.Sample(pb.SampleRequest(count=2), timeout=TIMEOUT_S)
        second = stub.Sample(pb.SampleRequest(count=2), timeout=TIMEOUT_S)
        repeated = stub.Sample(pb.SampleRequest(count=2, seed=first.seed), timeout=TIMEOUT_S)
        zero = stub.Sample(pb.SampleRequest(count=2, seed=0), timeout=TIMEOUT_S)
    assert first.seed != second.seed
    assert max(first.seed, second.seed) < 2**53
    assert repeated.latents == first.latents
    assert zero.seed == 0
    np.testing.assert_array_equal(
        unpack(zero.latents), latent_noise(0, first_row=0, count=2, dimension=LATENT_DIM)
    )


def test_temperature_zero_is_the_prior_mean(tiny_server: ServerProcess) -> None:
    """0 is a temperature, not the absence of one."""
    with stub_of(tiny_server.target) as stub:
        reply = stub.Sample(pb.SampleRequest(count=2, temperature=0.0), timeout=TIMEOUT_S)
    assert not unpack(reply.latents).any()


def test_score_at_the_posterior_mean(tiny_server: ServerProcess) -> None:
    """Distortion and rate follow their definitions, the ELBO is minus their sum, and nothing is random."""
    mean, log_variance = expected_encoding(IMAGES)
    with stub_of(tiny_server.target) as stub:
        replies = [stub.Score(pb.ScoreRequest(pixels=pixels(IMAGES)), timeout=TIMEOUT_S) for _ in range(2)]
    expected = distortion(BERNOULLI, IMAGES, expected_mean(mean))
    np.testing.assert_allclose(replies[0].distortion, expected, rtol=1e-5)
    np.testing.assert_allclose(replies[0].rate, rate(mean, log_variance), rtol=1e-5)
    total = np.array(replies[0].distortion) + np.array(replies[0].rate)
    np.testing.assert_allclose(replies[0].elbo, -total, rtol=1e-6)
    assert list(replies[0].elbo) == list(replies[1].elbo)
    assert not replies[0].HasField("seed")


def test_score_averages_draws(tiny_server: ServerProcess) -> None:
    """With draws the distortion is their mean, by the seed's noise, and pieces agree with the whole."""
    mean, log_variance = expected_encoding(IMAGES)
    noise = latent_noise(5, first_row=0, count=5 * 3, dimension=LATENT_DIM).reshape(5, 3, LATENT_DIM)
    latents = mean[:, None] + np.exp(0.5 * log_variance)[:, None] * noise
    expected = [
        np.mean([distortion(BERNOULLI, image[None], expected_mean(z[None])) for z in draws])
        for image, draws in zip(IMAGES, latents, strict=True)
    ]
    with stub_of(tiny_server.target) as stub:
        request = pb.ScoreRequest(pixels=pixels(IMAGES), num_samples=3, seed=5)
        reply = stub.Score(request, timeout=TIMEOUT_S)
        request = pb.ScoreRequest(pixels=pixels(IMAGES[2:]), num_samples=3, seed=5, first_row=2)
        tail = stub.Score(request, timeout=TIMEOUT_S)
        drawn = stub.Score(pb.ScoreRequest(pixels=pixels(IMAGES), num_samples=1), timeout=TIMEOUT_S)
    np.testing.assert_allclose(reply.distortion, expected, rtol=1e-5)
    np.testing.assert_allclose(tail.distortion, reply.distortion[2:], rtol=1e-6)
    assert reply.seed == 5
    assert drawn.HasField("seed")


@pytest.mark.parametrize("count", [1, 3, 64, 65, 200])
def test_batch_size_changes_no_answer(tiny_server: ServerProcess, count: int) -> None:
    """Rows have the same answers alone and among many, within one step of 255 for images."""
    images = random_images(count, *SHAPE.as_tuple, seed=count)
    with stub_of(tiny_server.target) as stub:
        mean = unpack(stub.Encode(pb.EncodeRequest(pixels=pixels(images)), timeout=TIMEOUT_S).mean)
        request = pb.ReconstructRequest(pixels=pixels(images))
        whole = unpack_pixels(stub.Reconstruct(request, timeout=TIMEOUT_S).images)
        last = images[-1:]
        alone = unpack(stub.Encode(pb.EncodeRequest(pixels=pixels(last)), timeout=TIMEOUT_S).mean)
        request = pb.ReconstructRequest(pixels=pixels(last))
        image_alone = unpack_pixels(stub.Reconstruct(request, timeout=TIMEOUT_S).images)
    np.testing.assert_allclose(mean[-1:], alone, atol=1e-5)
    assert np.abs(whole[-1:].astype(int) - image_alone).max() <= 1


def test_list_models(zoo_server: ServerProcess) -> None:
    """Every version is listed with its state; the highest is served by default."""
    with stub_of(zoo_server.target) as stub:
        reply = stub.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT_S)
    assert [model.name for model in reply.models] == ["colour", "plain", "tiny"]
    tiny = [(v.version, v.state, v.is_default) for v in reply.models[2].versions]
    assert tiny == [(1, pb.VERSION_STATE_NOT_LOADED, False), (2, pb.VERSION_STATE_SERVING, True)]


def test_get_model(zoo_server: ServerProcess) -> None:
    """A model is described with shape, likelihood, capabilities and limits."""
    with stub_of(zoo_server.target) as stub:
        colour = stub.GetModel(pb.GetModelRequest(model=pb.ModelRef(name="colour")), timeout=TIMEOUT_S)
        plain = stub.GetModel(pb.GetModelRequest(model=pb.ModelRef(name="plain")), timeout=TIMEOUT_S)
    assert (colour.height, colour.width, colour.channels, colour.latent_dim) == (10, 12, 3, 6)
    assert (colour.likelihood.name, colour.likelihood.sigma) == ("gaussian", 0.1)
    assert not colour.likelihood.HasField("probability_clamp")
    assert list(colour.precisions) == ["fp32"]
    assert list(plain.capabilities) == ["encode", "decode", "reconstruct"]
    assert colour.limits.max_rows_per_call == 1024
    assert colour.limits.max_message_bytes == 64 << 20
    assert '"schema_version": 3' in colour.manifest_json


def test_each_model_answers_for_itself(zoo_server: ServerProcess) -> None:
    """Models of other sizes and kinds are served side by side; an `ae` has no log-variance."""
    images = random_images(3, 10, 12, 3)
    with stub_of(zoo_server.target) as stub:
        request = pb.EncodeRequest(model=pb.ModelRef(name="colour"), pixels=pixels(images))
        assert unpack(stub.Encode(request, timeout=TIMEOUT_S).mean).shape == (3, 6)
        score = pb.ScoreRequest(model=pb.ModelRef(name="colour"), files=[png(image) for image in images])
        assert np.isfinite(stub.Score(score, timeout=TIMEOUT_S).elbo).all()
        request = pb.EncodeRequest(
            model=pb.ModelRef(name="plain"), pixels=pixels(IMAGES), include_log_variance=True
        )
        plain = stub.Encode(request, timeout=TIMEOUT_S)
    assert not plain.HasField("log_variance")


def test_a_version_can_be_pinned(zoo_server: ServerProcess) -> None:
    """A call with the default's number gets it and says so."""
    request = pb.EncodeRequest(model=pb.ModelRef(name="tiny", version=2), pixels=pixels(IMAGES))
    with stub_of(zoo_server.target) as stub:
        assert stub.Encode(request, timeout=TIMEOUT_S).model.version == 2


def test_files_of_several_callers_are_decoded_in_turn(tiny_server: ServerProcess) -> None:
    """One small picture does not wait for all the large ones of a call before it."""
    large = png(np.zeros((3000, 3000, 3), np.uint8))
    with stub_of(tiny_server.target) as first, stub_of(tiny_server.target) as second:
        bulk = first.Encode.future(pb.EncodeRequest(files=[large] * 60), timeout=60)
        time.sleep(0.3)
        second.Encode(pb.EncodeRequest(files=[png(IMAGES[0])]), timeout=TIMEOUT_S)
        assert not bulk.done()
        assert bulk.result().mean.count == 60


def test_serve_rolls_back(tmp_path: Path) -> None:
    """`--serve MODEL=VERSION` serves an older version by default."""
    from support.serving import serving

    publish_tiny(tmp_path)
    publish_tiny(tmp_path, seed=1)
    with serving(tmp_path, "--serve", "tiny=1") as server, stub_of(server.target) as stub:
        reply = stub.Encode(pb.EncodeRequest(pixels=pixels(IMAGES)), timeout=TIMEOUT_S)
    assert reply.model.version == 1
    np.testing.assert_allclose(unpack(reply.mean), expected_encoding(IMAGES)[0], atol=1e-5)
