"""Splits by the hash of pixels: what moves, what does not, and sets that are too small."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from convvae_trainer.data.dataset import load_dataset
from convvae_trainer.data.parts import data_parts
from convvae_trainer.data.pixel_hash import pixel_hashes
from convvae_trainer.data.sources import read_source
from convvae_trainer.data.splits import held_out_to_test, held_out_to_validate
from convvae_trainer.errors import BadData
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config


def noise(count: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Return `count` different images of 8x8x1."""
    return np.random.default_rng(seed).integers(256, size=(count, 8, 8, 1), dtype=np.uint8)


def split(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8], str]:
    """Return the images that are trained on, those that are tested on, and the sentence."""
    is_test, text = held_out_to_test(pixel_hashes(images), name="these")
    return images[~is_test], images[is_test], text


def validation_split(
    images: NDArray[np.uint8], share: float | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the images that are trained on, and those that validate."""
    validates = held_out_to_validate(pixel_hashes(images), share=share)
    return images[~validates], images[validates]


def rows(images: NDArray[Any]) -> set[bytes]:
    return {image.tobytes() for image in images}


def write(folder: Path, images: NDArray[np.uint8], *, first: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images, start=first):
        Image.fromarray(image[..., 0]).save(folder / f"{number:05}.png")


def test_about_a_tenth_is_held_out() -> None:
    """A hash below a tenth of 2^64 makes an image a test image; both parts keep their order."""
    images = noise(5000)
    train, test, text = split(images)
    is_test = np.array([int(value) * 10 < 2**64 for value in pixel_hashes(images)])
    np.testing.assert_array_equal(test, images[is_test])
    np.testing.assert_array_equal(train, images[~is_test])
    assert 440 < len(test) < 560
    assert text == (
        f"{len(test)} of 5000 images are held out: the hash of their pixels falls into the lowest tenth"
    )


def test_no_image_moves_when_others_come_go_or_change_places() -> None:
    """One image more, half of the images, another order: each image stays on its side."""
    images = noise(2000)
    train, test, _ = split(images)
    for others in (
        np.concatenate([noise(1, seed=1), images]),
        images[::2],
        np.random.default_rng(2).permutation(images),
    ):
        new_train, new_test, _ = split(others)
        assert not rows(new_test) & rows(train)
        assert not rows(new_train) & rows(test)


def test_copies_are_on_one_side() -> None:
    """A picture that a folder holds several times is never trained on and tested on."""
    images = noise(300)
    train, test, _ = split(np.concatenate([images, images[::3], images[:50]]))
    assert not rows(train) & rows(test)
    assert len(train) + len(test) == 450


@pytest.mark.parametrize("count", [3, 4, 7, 12, 20])
def test_a_small_set_has_a_test_image_and_two_training_images(count: int) -> None:
    """Where a tenth of the hashes has none or nearly all, the image of the lowest hash is held out."""
    for seed in range(40):
        images = noise(count, seed=seed)
        train, test, text = split(images)
        assert len(test) >= 1
        assert len(train) >= 2
        if "is the lowest" in text:
            assert len(test) == 1
            assert pixel_hashes(test)[0] == pixel_hashes(images).min()


def test_a_small_set_of_copies_leaves_two_for_training() -> None:
    """The lowest hash is passed over if its copies leave fewer than two images."""
    one, other = sorted(noise(2), key=lambda image: int(pixel_hashes(image[None])[0]))
    train, test, _ = split(np.stack([one, one, other]))
    assert rows(test) == {other.tobytes()}
    assert len(train) == 2


def test_nothing_but_copies_is_refused() -> None:
    """Whatever were held out, the model would be trained on it."""
    with pytest.raises(BadData, match="all 6 images of these are the same: a model needs others"):
        split(np.repeat(noise(1), 6, axis=0))


def test_two_images_are_refused() -> None:
    """Two training images and one test image are the least."""
    with pytest.raises(BadData, match="holds 2 images and no test images of its own: at least 3 are needed"):
        split(noise(2))


def test_a_twentieth_validates_and_no_image_moves() -> None:
    """The lower half of the hash decides, and keeps an image on its side whatever others there are."""
    images = noise(4000)
    train, validation = validation_split(images)
    assert 150 < len(validation) < 250
    np.testing.assert_array_equal(
        validation, images[[int(value) % 2**32 * 20 < 2**32 for value in pixel_hashes(images)]]
    )
    others = np.concatenate([noise(1, seed=1), images[::-1]])
    new_train, new_validation = validation_split(others)
    assert not rows(new_train) & rows(validation)
    assert not rows(new_validation) & rows(train)


def test_validation_does_not_depend_on_the_test() -> None:
    """As large a share of the test images would validate as of the others."""
    train, test, _ = split(noise(20_000))
    shares = [len(validation_split(part, 0.3)[1]) / len(part) for part in (train, test)]
    assert shares == pytest.approx([0.3, 0.3], abs=0.03)


def test_at_most_a_thousand_images_validate() -> None:
    """The share is halved until they are few enough; the images that are left validated before."""
    images = noise(30_000)
    _, validation = validation_split(images)
    hashes = pixel_hashes(images).tolist()
    assert rows(validation) == rows(images[[value % 2**32 * 40 < 2**32 for value in hashes]])
    assert 500 < len(validation) <= 1000
    assert rows(validation) < rows(validation_split(images, 0.05)[1])
    assert len(validation_split(images, 0.05)[1]) > 1000


def test_a_small_set_has_a_validation_image_if_two_others_are_left() -> None:
    """Three images are enough; two are not, and copies stay together."""
    for seed in range(20):
        train, validation = validation_split(noise(3, seed=seed))
        assert (len(train), len(validation)) == (2, 1)
        assert len(validation_split(noise(2, seed=seed))[1]) == 0
    assert len(validation_split(np.repeat(noise(1), 9, axis=0))[1]) == 0


def test_no_share_validates_nothing() -> None:
    """With a share of 0 all images are trained on."""
    train, validation = validation_split(noise(500), 0.0)
    assert (len(train), len(validation)) == (500, 0)


def test_a_file_more_in_a_folder_moves_no_image(tmp_path: Path) -> None:
    """Neither a new first file nor other names change which images are trained, validated or tested on."""

    def parts(folder: Path) -> list[set[bytes]]:
        dataset = load_dataset(Config(dataset=str(folder)))
        assert dataset.validation is not None
        return [rows(part) for part in (dataset.train, dataset.validation, dataset.test)]

    write(tmp_path / "one", noise(200))
    write(tmp_path / "two", noise(1, seed=9))
    write(tmp_path / "two", noise(200)[::-1], first=1)
    before, after = parts(tmp_path / "one"), parts(tmp_path / "two")
    assert (sum(map(len, before)), sum(map(len, after))) == (200, 201)
    assert all(part <= new_part for part, new_part in zip(before, after, strict=True))


@pytest.mark.parametrize("is_split", [False, True])
def test_the_images_are_copied_once_at_most(tmp_path: Path, is_split: bool) -> None:
    """Splitting takes the memory of one copy, and none where nothing is held out."""
    images = np.random.default_rng(0).integers(256, size=(4000, 64, 64), dtype=np.uint8)
    np.save(tmp_path / "a.npy", images)
    np.save(tmp_path / "b.npy", 255 - images[:2])
    other = {} if is_split else {"test_dataset": str(tmp_path / "b.npy"), "validation_share": 0.0}
    config = config_from({"dataset": str(tmp_path / "a.npy"), **other})
    source = read_source(config, download=False, channels=None)
    tracemalloc.start()
    parts = data_parts(config, source, download=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.shares_memory(parts.train.images, source.train.images) != is_split
    assert peak < is_split * images.nbytes + (1 << 20)
