"""A model in this process answers as the graphs say, in parts, from several threads, until it is closed."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convvae import ClientClosed, ForkedDuringUse, InvalidInput, NotPossible, ServerFault
from convvae_service import LocalModel, open_model
from convvae_service.api.noise import latent_noise
from convvae_service.bundle import rate
from convvae_service.local import model as model_module
from support.reference_rows import decoded, encoded, reference_distortion, within_a_step
from support.tiny_bundle import LATENT_DIM, SHAPE, publish_tiny

IMAGES = np.random.default_rng(0).integers(0, 256, (30, *SHAPE.as_tuple), np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE and an autoencoder."""
    root = tmp_path_factory.mktemp("models")
    publish_tiny(root)
    publish_tiny(root, "plain", objective="ae")
    return root


@pytest.fixture(params=[1000, 7], ids=["at once", "in parts"])
def model(
    root: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalModel]:
    """The VAE, which computes all rows at once, or seven at a time."""
    monkeypatch.setattr(model_module, "_MAX_ROWS", request.param)
    with open_model(root / "tiny", device="cpu", threads=1) as model:
        yield model


def test_encode_gives_the_posterior(model: LocalModel) -> None:
    """Means are those of the graph, and log-variances are there on request."""
    mean, log_variance = encoded(IMAGES)
    answer = model.encode(IMAGES, include_log_variance=True)
    assert answer.log_variance is not None
    np.testing.assert_allclose(answer.mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answer.log_variance, log_variance, rtol=1e-4, atol=1e-5)
    assert model.encode(IMAGES).log_variance is None
    assert answer.mean.flags.writeable


def test_images_without_a_channel_axis_are_grey(model: LocalModel) -> None:
    """(N, H, W) is the same as (N, H, W, 1)."""
    assert np.array_equal(model.encode(IMAGES[..., 0]).mean, model.encode(IMAGES).mean)


def test_decode_and_reconstruct_give_images(model: LocalModel) -> None:
    """Images are the means of p(x|z), of given latents and of posterior means."""
    mean = encoded(IMAGES)[0]
    assert within_a_step(model.decode(mean).images, decoded(mean) * 255)
    assert within_a_step(model.reconstruct(IMAGES).images, decoded(mean) * 255)


def test_a_seed_gives_its_noise(model: LocalModel) -> None:
    """Row i of a seed is the noise of the contract times the temperature, from any first row."""
    answer = model.sample(20, seed=7, temperature=0.5, first_row=3)
    noise = latent_noise(7, first_row=3, count=20, dimension=LATENT_DIM)
    assert np.array_equal(answer.latents, noise * np.float32(0.5))
    assert within_a_step(answer.images, decoded(answer.latents) * 255)
    assert answer.seed == 7
    assert np.array_equal(
        model.sample(5, seed=7, temperature=0.5, first_row=10).latents, answer.latents[7:12]
    )


def test_without_a_seed_one_is_drawn(model: LocalModel) -> None:
    """The drawn seed differs from call to call, and gives the same images again."""
    first, second = model.sample(2), model.sample(2)
    assert first.seed != second.seed
    assert np.array_equal(model.sample(2, seed=first.seed).images, first.images)


@pytest.mark.parametrize("draws", [0, 1, 5, 40])
def test_score_gives_the_bound(model: LocalModel, draws: int) -> None:
    """ELBO, distortion and rate follow the contract, also if an image has more draws than a part."""
    from convvae.v1 import vae_pb2

    answer = model.score(IMAGES[:9], num_samples=draws, seed=5, first_row=2)
    request = vae_pb2.ScoreRequest(num_samples=draws, seed=5, first_row=2)
    np.testing.assert_allclose(answer.distortion, reference_distortion(IMAGES[:9], request), rtol=1e-3)
    np.testing.assert_allclose(answer.rate, rate(*encoded(IMAGES[:9])), rtol=1e-4)
    assert np.array_equal(answer.elbo, -(answer.distortion + answer.rate))
    assert answer.seed == (5 if draws else None)


def test_files_are_read_as_a_server_reads_them(model: LocalModel, tmp_path: Path) -> None:
    """Paths, a folder, bytes and pictures of the model's size give the results of the array."""
    paths = [tmp_path / f"{row}.png" for row in range(9)]
    for path, image in zip(paths, IMAGES, strict=False):
        Image.fromarray(image[..., 0]).save(path)
    pictures = [Image.fromarray(image[..., 0]) for image in IMAGES[:9]]
    expected = model.encode(IMAGES[:9]).mean
    forms: list[Any] = [paths, [str(path) for path in paths], tmp_path, str(tmp_path), pictures]
    for images in (*forms, [path.read_bytes() for path in paths], list(IMAGES[:9])):
        assert np.array_equal(model.encode(images).mean, expected)
    large = pictures[0].resize((60, 80))
    assert model.reconstruct(large).images.shape == (1, *SHAPE.as_tuple)


def test_files_that_cannot_be_read_are_all_named(model: LocalModel, tmp_path: Path) -> None:
    """The error has each bad file with its path, and no result is returned."""
    Image.fromarray(IMAGES[0, ..., 0]).save(tmp_path / "a.png")
    for name in ("b.png", "c.jpg"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(InvalidInput) as caught:
        model.score(tmp_path)
    assert [each.field for each in caught.value.violations] == ["files[1]", "files[2]"]
    assert f"files[1]: {tmp_path / 'b.png'}: not a JPEG, PNG or WebP image (and 1 more)" == str(caught.value)
    with pytest.raises(InvalidInput, match=r"files\[0\]: .*none.png: No such file"):
        model.encode("none.png")


def test_large_files_are_refused_before_they_are_decoded(root: Path) -> None:
    """`max_pixels` limits the pixels of a file."""
    with open_model(root / "tiny", device="cpu", max_pixels=99) as model:
        with pytest.raises(InvalidInput, match=r"files\[0\]: 10x10 is more than the limit of 99 pixels"):
            model.encode(Image.new("L", (10, 10)))
        assert model.model().limits.max_pixels_per_file == 99


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.encode(IMAGES / 255), "the dtype is float64"),
        (lambda model: model.encode(IMAGES[:, :4]), r"shape is \(30, 4, 6, 1\); model 'tiny' takes"),
        (lambda model: model.decode(np.zeros((2, 5))), r"shape is \(2, 5\); model 'tiny' takes \(N, 4\)"),
        (lambda model: model.decode([[0.0, np.nan, 0.0, 0.0]]), r"latents\[0\]: NaN"),
        (lambda model: model.sample(0), "count: is 0"),
        (lambda model: model.sample(1, temperature=2e6), "temperature: is 2e[+]06; it must be from 0 to 1e"),
        (lambda model: model.sample(2, first_row=2**64 - 1), "first_row: is"),
        (lambda model: model.score(IMAGES, num_samples=-1), "num_samples: is -1"),
    ],
)
def test_wrong_arguments_are_refused(model: LocalModel, call: Any, message: str) -> None:
    """The errors are those of the client."""
    with pytest.raises(InvalidInput, match=message):
        call(model)


def test_an_autoencoder_has_no_prior(root: Path) -> None:
    """Calls that the model cannot answer are refused; the rest works."""
    with open_model(root / "plain", device="cpu") as model:
        assert model.encode(IMAGES, include_log_variance=True).log_variance is None
        assert model.reconstruct(IMAGES).images.shape == IMAGES.shape
        for call in (lambda: model.sample(1), lambda: model.score(IMAGES)):
            with pytest.raises(NotPossible, match=r"model 'plain' \(ae\) cannot .*: it can encode, decode"):
                call()


def test_threads_share_a_model(model: LocalModel) -> None:
    """Calls of several threads at the same time get the results of their own rows."""
    expected = model.encode(IMAGES).mean
    wrong: list[int] = []

    def work(offset: int) -> None:
        for start in range(20):
            row = (start + offset) % 30
            if not np.allclose(model.encode(IMAGES[row : row + 1]).mean, expected[row], atol=1e-5):
                wrong.append(row)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_closed_model_refuses_calls(root: Path) -> None:
    """After `close`, which may be called twice, every call is refused. The description stays."""
    model = open_model(root / "tiny", device="cpu")
    model.close()
    model.close()
    with pytest.raises(ClientClosed, match="model 'tiny' was closed"):
        model.encode(IMAGES)
    assert model.model().model == "tiny"


def test_a_call_in_progress_outlives_a_close(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that runs when another thread closes the model gets its result."""
    model = open_model(root / "tiny", device="cpu")
    read = model._reader.read

    def read_and_close(images: Any) -> Any:
        closer = threading.Thread(target=model.close)
        closer.start()
        closer.join()
        return read(images)

    monkeypatch.setattr(type(model._reader), "read", lambda _, images: read_and_close(images))
    assert len(model.encode(IMAGES).mean) == len(IMAGES)
    with pytest.raises(ClientClosed):
        model.decode(np.zeros((1, LATENT_DIM)))


def test_a_forked_process_is_refused(model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call there would wait for threads that only the parent has."""
    monkeypatch.setattr("convvae_service.local.model.os.getpid", lambda: -1)
    with pytest.raises(ForkedDuringUse, match="model 'tiny' was opened before this process was forked"):
        model.encode(IMAGES)


def test_a_failure_of_the_engine_is_an_error_of_the_package(model: LocalModel) -> None:
    """An error of ONNX Runtime becomes `ServerFault`, in one line."""
    model._version.engine.interrupt()
    with pytest.raises(ServerFault, match="ONNX Runtime failed to encode: "):
        model.encode(IMAGES)
