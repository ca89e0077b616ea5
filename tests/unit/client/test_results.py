"""Results as a notebook and an interpreter show them."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convvae import pictures
from convvae.errors import ConvvaeError
from convvae.results import Decoded, Encoded, ImageAnswer, Reconstructed, Sampled, Scored

WHO: dict[str, Any] = {"model": "m<1>", "version": 3, "precision": "int8"}
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 1), np.uint8)
ROW = np.zeros(5, np.float32)


def test_arrays_are_shown_by_their_shape() -> None:
    """No value of an array is printed, whatever its size."""
    encoded = Encoded(mean=np.zeros((1000, 32), np.float32), **WHO)
    assert repr(encoded) == (
        "Encoded(model='m<1>', version=3, precision='int8', mean=float32 (1000, 32), log_variance=None)"
    )
    assert "elbo=float32 (5,)" in repr(Scored(elbo=ROW, distortion=ROW, rate=ROW, seed=7, **WHO))


@pytest.mark.parametrize(
    "answer",
    [
        Decoded(images=IMAGES, **WHO),
        Reconstructed(images=IMAGES, **WHO),
        Sampled(images=IMAGES, latents=np.zeros((5, 2), np.float32), seed=7, **WHO),
    ],
)
def test_a_notebook_shows_images_as_a_grid(answer: ImageAnswer) -> None:
    """The PNG is the grid of the images, and the HTML has the same picture and who made it, escaped."""
    picture = answer._repr_png_()
    assert picture is not None
    with Image.open(io.BytesIO(picture)) as shown:
        assert np.array_equal(np.asarray(shown), pictures.grid(IMAGES)[..., 0])
    text = answer._repr_html_()
    assert text is not None
    assert text.startswith('<img src="data:image/png;base64,')
    assert text.endswith("5 images by m&lt;1&gt;@3 (int8)")


def test_a_notebook_shows_the_first_of_many_images() -> None:
    """A picture stays small: at most 100 images, and fewer large ones."""
    many = Decoded(images=np.zeros((10_000, 8, 8, 3), np.uint8), **WHO)
    text = many._repr_html_()
    assert text is not None
    assert "the first 100 of 10000 images" in text
    assert len(text) < 100_000
    assert pictures.shown_count((100, 256, 256, 3)) == 30
    assert pictures.shown_count((3, 4096, 4096, 3)) == 1


def test_without_pillow_a_notebook_shows_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing fails where Pillow is absent."""

    def absent() -> None:
        raise ConvvaeError("writing pictures needs Pillow")

    monkeypatch.setattr(pictures, "pillow", absent)
    answer = Decoded(images=IMAGES, **WHO)
    assert answer._repr_png_() is None
    assert answer._repr_html_() is None
    assert "images=uint8 (5, 64, 64, 1)" in repr(answer)
