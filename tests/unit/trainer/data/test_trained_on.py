"""Images that models were trained on are found by their pixels, and are no test images."""

import time

import numpy as np
import pytest

from convvae_service.bundle import encode_trained_on
from convvae_trainer.data.labelled_images import LabelledImages
from convvae_trainer.data.trained_on import fingerprints, left_out_text, unseen, without_copies
from convvae_trainer.errors import BadData

IMAGES = np.random.default_rng(0).integers(256, size=(20, 8, 9, 3), dtype=np.uint8)
DATA = LabelledImages(IMAGES, np.arange(20))


def test_an_image_that_any_model_was_trained_on_is_left_out() -> None:
    """The number for each model counts an image of both twice; what cannot be told leaves nothing out."""
    known = {"a": fingerprints(IMAGES[:5]), "b": fingerprints(IMAGES[[3, 4, 9]]), "old": None}
    found = unseen(DATA, known, name="photos")
    assert found.left_out == {"a": 5, "b": 3, "old": None}
    assert found.rows.tolist() == [*range(5, 9), *range(10, 20)]
    np.testing.assert_array_equal(found.data.images, IMAGES[found.rows])
    assert found.data.labels is not None
    assert found.data.labels.tolist() == found.rows.tolist()
    assert left_out_text(found.left_out) == (
        "5 training images of a, 3 training images of b; for old it cannot be told"
    )


@pytest.mark.parametrize("known", [None, fingerprints(255 - IMAGES)])
def test_images_of_which_none_is_known_are_not_copied(known: np.ndarray | None) -> None:
    """A large array, which may be a mapped file, stays as it is."""
    found = unseen(DATA, {"a": known}, name="photos")
    assert found.data.images is IMAGES
    assert found.left_out == {"a": None if known is None else 0}


def test_nothing_left_is_refused() -> None:
    """The line says for which model how many images were left out."""
    known = {"a": fingerprints(IMAGES[:12]), "b": fingerprints(IMAGES[11:]), "old": None}
    with pytest.raises(BadData) as caught:
        unseen(DATA, known, name="photos")
    assert str(caught.value) == (
        "no image of photos is left to test on, without 12 training images of a, 9 training images of b;"
        " for old it cannot be told: give images that were not trained on"
    )


def test_copies_of_training_images_are_no_test_images() -> None:
    """A data set's own test part may have them; a sentence says how many."""
    train = LabelledImages(IMAGES[:10], None)
    known = fingerprints(train.images)
    test = LabelledImages(np.concatenate([IMAGES[8:12], IMAGES[9:10]]), np.arange(5))
    kept, text = without_copies(test, known, name="photos")
    np.testing.assert_array_equal(kept.images, IMAGES[10:12])
    assert kept.labels is not None
    assert kept.labels.tolist() == [2, 3]
    assert text == "3 of them are left out, copies of training images"
    assert without_copies(kept, known, name="photos") == (kept, "")
    assert without_copies(LabelledImages(IMAGES[9:11], None), known, name="photos")[1] == (
        "1 of them is left out, a copy of a training image"
    )
    with pytest.raises(BadData, match="all 10 test images of photos are copies of training images"):
        without_copies(train, known, name="photos")


def test_70_000_images_take_8_bytes_each_and_less_than_a_second() -> None:
    """Bytes and processor time are those of a run that records the training images of MNIST."""
    images = np.random.default_rng(0).integers(256, size=(70_000, 28, 28, 1), dtype=np.uint8)
    start_s = time.process_time()
    entry, data = encode_trained_on(fingerprints(images))
    assert time.process_time() - start_s < 1
    assert entry.count == 70_000
    assert len(data) / len(images) <= 8.1


def test_models_that_saw_no_test_image_are_one_text() -> None:
    """A report on twelve models does not name each of them for nothing."""
    assert left_out_text({"a": 0, "b": 0}) == "no training images of any model"
    assert left_out_text({"a": 0}) == "no training images of a"
    assert left_out_text({"a": 0, "b": 1, "c": 0}) == "1 training image of b, no training images of a, c"
    assert left_out_text({"a": 0, "b": None}) == "no training images of a; for b it cannot be told"
