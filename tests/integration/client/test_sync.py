"""`Client` against a real server."""

import io
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convvae
from convvae import Client, Health, InvalidInput, RetryConfig
from support.serving import ServerProcess, serving

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (50, 8, 6, 1), np.uint8)


def png(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0]).save(file, "PNG")
    return file.getvalue()


def test_encode_decode_and_reconstruct_agree(tiny_server: ServerProcess) -> None:
    """Decoding the posterior means is what reconstructing does; files give what their pixels give."""
    with Client(tiny_server.target, model="tiny") as vae:
        encoded = vae.encode(IMAGES, include_log_variance=True)
        assert encoded.mean.shape == (50, 4)
        assert encoded.mean.dtype == np.float32
        assert encoded.log_variance is not None
        assert encoded.log_variance.shape == (50, 4)
        assert (encoded.model, encoded.version, encoded.precision) == ("tiny", 1, "fp32")
        assert vae.encode(IMAGES).log_variance is None
        decoded = vae.decode(encoded.mean).images
        assert decoded.shape == IMAGES.shape
        assert decoded.dtype == np.uint8
        assert np.array_equal(vae.reconstruct(IMAGES).images, decoded)
        assert np.array_equal(vae.encode(IMAGES[..., 0]).mean, encoded.mean)
        files = [png(image) for image in IMAGES]
        assert np.allclose(vae.encode(files).mean, encoded.mean, atol=1e-5)


def test_sample_is_repeatable_and_a_prefix(tiny_server: ServerProcess) -> None:
    """A seed gives the same rows in any call; without one the result names it."""
    with Client(tiny_server.target) as vae:
        whole = vae.sample(20, seed=7, temperature=0.5)
        assert whole.seed == 7
        assert np.array_equal(vae.sample(5, seed=7, temperature=0.5).latents, whole.latents[:5])
        assert np.array_equal(
            vae.sample(5, seed=7, temperature=0.5, first_row=15).latents, whole.latents[15:]
        )
        assert not vae.sample(3, temperature=0).latents.any()
        drawn = vae.sample(4)
        assert np.array_equal(vae.sample(4, seed=drawn.seed).latents, drawn.latents)


def test_score_is_the_sum_of_its_parts(tiny_server: ServerProcess) -> None:
    """Elbo = -(distortion + rate); draws are repeatable by their seed."""
    with Client(tiny_server.target) as vae:
        scored = vae.score(IMAGES)
        assert scored.seed is None
        assert scored.elbo.shape == (50,)
        assert np.allclose(scored.elbo, -(scored.distortion + scored.rate), rtol=1e-5)
        drawn = vae.score(IMAGES, num_samples=3)
        assert np.array_equal(vae.score(IMAGES, num_samples=3, seed=drawn.seed).elbo, drawn.elbo)


@pytest.mark.usefixtures("each_front")
def test_cut_calls_equal_whole_calls(tiny_server: ServerProcess, tiny_root: Path) -> None:
    """Under small limits, of rows or of bytes, every call gives what it gives in one piece."""
    with serving(tiny_root, "--max-rows-per-call", "7") as small, Client(small.target) as cut:
        assert cut.model().limits.max_rows_per_call == 7
        with Client(tiny_server.target) as whole:
            assert np.allclose(cut.encode(IMAGES).mean, whole.encode(IMAGES).mean, atol=1e-5)
            ours, theirs = cut.sample(50, seed=3), whole.sample(50, seed=3)
            assert np.array_equal(ours.latents, theirs.latents)
            assert np.abs(ours.images.astype(int) - theirs.images).max() <= 1
            ours_s, theirs_s = (vae.score(IMAGES, num_samples=2, seed=5) for vae in (cut, whole))
            assert np.allclose(ours_s.elbo, theirs_s.elbo, rtol=1e-4)
        files: list[bytes] = [png(image) for image in IMAGES[:20]]
        files[3] = files[17] = b"no image"
        with pytest.raises(InvalidInput, match=r"files\[(3|17)\]") as caught:
            cut.encode(files)
        assert {violation.field for violation in caught.value.violations} <= {"files[3]", "files[17]"}
        files[3] = files[0]
        with pytest.raises(InvalidInput, match=r"files\[17\]: not a JPEG, PNG or WebP image") as caught:
            cut.encode(files)
        assert [violation.field for violation in caught.value.violations] == ["files[17]"]


@pytest.mark.usefixtures("each_front")
def test_large_array_in_small_messages(tiny_root: Path) -> None:
    """Ten megabytes go through a server that takes messages of 64 KiB."""
    images = np.zeros((200_000, 8, 6, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(200_000) % 251
    flags = ("--max-message-bytes", str(1 << 16), "--max-rows-per-call", "4096")
    with serving(tiny_root, *flags) as small, Client(small.target) as vae:
        mean = vae.encode(images).mean
        assert np.allclose(mean[:251], mean[251:502], atol=1e-5)
        assert mean.shape == (200_000, 4)


@pytest.mark.usefixtures("each_front")
def test_overloaded_server_is_waited_for(tiny_root: Path) -> None:
    """Many threads over a queue that is too small for them all are answered in the end."""
    failures: list[Exception] = []
    with serving(tiny_root, "--max-rows-per-call", "64", "--max-queued-rows", "64") as small:

        def work() -> None:
            try:
                retry = RetryConfig(retries=30, budget=1000)
                with Client(small.target, retry=retry) as vae:
                    assert vae.encode(np.zeros((1000, 8, 6, 1), np.uint8)).mean.shape == (1000, 4)
            except Exception as error:  # noqa: BLE001 - collected for the assertion
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_a_target_may_list_addresses(tiny_server: ServerProcess) -> None:
    """Calls go to the servers of the list in turn, by either front."""
    with Client(f"ipv4:{tiny_server.target},{tiny_server.target}") as vae:
        assert vae.sample(2).images.shape == (2, 8, 6, 1)


def test_models_and_health(zoo_server: ServerProcess) -> None:
    """Models, their versions and the health of each are listed."""
    with Client(zoo_server.target, model="colour") as vae:
        models = {model.name: model.versions for model in vae.models()}
        assert set(models) == {"colour", "plain", "tiny"}
        default = next(version for version in models["tiny"] if version.is_default)
        assert (default.version, default.state, default.error) == (2, "serving", "")
        about = vae.model()
        assert (about.image_shape, about.latent_dim, about.objective) == ((10, 12, 3), 6, "vae")
        assert about.manifest["model"] == "colour"
        assert about.likelihood.sigma == pytest.approx(0.1)
        assert about.limits.max_message_bytes > 0
        assert vae.health() is Health.SERVING
        assert vae.health("colour") is Health.SERVING
        assert vae.health("nobody") is Health.SERVICE_UNKNOWN


def test_server_says_what_is_wrong(zoo_server: ServerProcess) -> None:
    """Unknown names, missing capabilities and ambiguous calls have errors of their own, with an id."""
    with Client(zoo_server.target) as vae:
        with pytest.raises(InvalidInput) as ambiguous:
            vae.sample(1)
        assert ambiguous.value.code == "INVALID_ARGUMENT"
        with pytest.raises(convvae.NotFound) as missing:
            vae.sample(1, model="nobody")
        assert missing.value.request_id
        with pytest.raises(convvae.NotFound):
            vae.sample(1, model="tiny@99")
        with pytest.raises(convvae.NotPossible):
            vae.sample(1, model="plain")
        with pytest.raises(convvae.NotPossible):
            vae.score(IMAGES[:1], model="plain")
        assert vae.encode(IMAGES[:1], include_log_variance=True, model="plain").log_variance is None


@pytest.mark.usefixtures("each_front")
def test_stopped_server_is_unavailable(tiny_root: Path) -> None:
    """After the server has gone, calls fail with Unavailable once the retries are used up."""
    with serving(tiny_root) as server, Client(server.target, retry=RetryConfig(retries=1)) as vae:
        vae.sample(1)
        server.stop()
        with pytest.raises(convvae.Unavailable):
            vae.sample(1)
