"""Test and validation images that are data sets of their own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.data.sources import with_absolute_paths
from convvae_trainer.errors import BadData
from convvae_trainer.settings.config import Config


def npz(path: Path, count: int, *, seed: int, shape: tuple[int, ...] = (10, 12), labels: Any = None) -> str:
    """Write different images, and return the path as a setting."""
    images = np.random.default_rng(seed).integers(256, size=(count, *shape), dtype=np.uint8)
    np.savez(path, images=images, **({} if labels is None else {"labels": labels}))
    return str(path)


def load(dataset: str, **settings: Any) -> Dataset:
    return load_dataset(Config(dataset=dataset, **settings))


def test_all_images_are_trained_on_and_those_of_the_other_sets_are_not(tmp_path: Path) -> None:
    """With both sets nothing is held out of the data set, and the split names the sets without folders."""
    train = npz(tmp_path / "a.npz", 50, seed=0)
    test, validation = npz(tmp_path / "b.npz", 7, seed=1), npz(tmp_path / "c.npz", 5, seed=2)
    dataset = load(train, test_dataset=test, validation_dataset=validation)
    np.testing.assert_array_equal(dataset.train[..., 0], np.load(train)["images"])
    np.testing.assert_array_equal(dataset.test[..., 0], np.load(test)["images"])
    assert dataset.validation is not None
    np.testing.assert_array_equal(dataset.validation[..., 0], np.load(validation)["images"])
    assert (dataset.split, dataset.validation_split) == ("the 7 images of b.npz", "the 5 images of c.npz")
    assert dataset.fingerprint() != load(train, test_dataset=test, validation_share=0.0).fingerprint()


def test_images_that_are_trained_on_are_in_no_other_part(tmp_path: Path) -> None:
    """A set that was copied from the data set is left out in part, and refused as a whole."""
    train = npz(tmp_path / "a.npz", 50, seed=0)
    images, others = np.load(train)["images"], np.load(npz(tmp_path / "c.npz", 5, seed=1))["images"]
    np.save(tmp_path / "b.npy", np.concatenate([images[10:20], others]))
    dataset = load(train, test_dataset=str(tmp_path / "b.npy"), validation_share=0.0)
    np.testing.assert_array_equal(dataset.test[..., 0], others)
    assert dataset.split == "the 15 images of b.npy; 10 of them are left out, copies of training images"
    for setting, part in (("test_dataset", "test"), ("validation_dataset", "validation")):
        given = {"test_dataset": str(tmp_path / "c.npz"), setting: train}
        with pytest.raises(
            BadData, match=rf"all 50 {part} images of \S*a\.npz are copies of training images"
        ):
            load(train, **given)


@pytest.mark.parametrize("setting", ["test_dataset", "validation_dataset"])
def test_other_sizes_and_channels_are_refused(tmp_path: Path, setting: str) -> None:
    """The line names both sizes; `image_size` resizes both sets."""
    train = npz(tmp_path / "a.npz", 20, seed=0)
    larger = npz(tmp_path / "b.npz", 5, seed=1, shape=(20, 24))
    colour = npz(tmp_path / "c.npz", 5, seed=1, shape=(10, 12, 3))
    message = rf"^images of {setting} b\.npz are 20x24x1, but those of a\.npz are 10x12x1: give --image-size"
    with pytest.raises(BadData, match=message):
        load(train, **{setting: larger})
    with pytest.raises(BadData, match=rf"^images of {setting} c\.npz are 10x12x3, but those"):
        load(train, **{setting: colour})
    assert load(train, image_size=(8, 8), **{setting: larger}).image.as_tuple == (8, 8, 1)


@pytest.mark.parametrize("setting", ["test_dataset", "validation_dataset"])
def test_other_classes_are_refused(tmp_path: Path, setting: str) -> None:
    """Labels of arrays are compared by number."""
    train = npz(tmp_path / "a.npz", 20, seed=0, labels=np.arange(20) % 3)
    other = npz(tmp_path / "b.npz", 6, seed=1, labels=np.arange(6))
    with pytest.raises(
        BadData, match=rf"^{setting} b\.npz has classes that the training images lack: 3, 4, 5$"
    ):
        load(train, **{setting: other})
    unlabelled = npz(tmp_path / "c.npz", 6, seed=1)
    assert load(train, test_dataset=unlabelled).test_labels is None


def test_classes_of_folders_are_the_same_by_name(tmp_path: Path) -> None:
    """A test folder without the first class has the numbers of the training folder; colours follow it too."""

    def write(folder: Path, level: int, mode: str) -> None:
        folder.mkdir(parents=True)
        for number in range(6):
            pixels = np.full((10, 12), level, np.uint8)
            pixels[0, 0] = number
            Image.fromarray(pixels).convert(mode).save(folder / f"{number}.png")

    write(tmp_path / "all" / "cat", 1, "L")
    write(tmp_path / "all" / "dog", 2, "L")
    write(tmp_path / "other" / "dog", 3, "RGB")
    dataset = load(str(tmp_path / "all"), test_dataset=str(tmp_path / "other"))
    assert dataset.test_labels is not None
    assert dataset.test_labels.tolist() == [1] * 6
    assert dataset.test.shape == (6, 10, 12, 1)
    assert dataset.split == "the 6 images of other; all 6 pictures are in colour, read as grey"
    write(tmp_path / "other" / "fish", 4, "L")
    with pytest.raises(
        BadData, match=r"^test_dataset other has classes that the training images lack: fish$"
    ):
        load(str(tmp_path / "all"), test_dataset=str(tmp_path / "other"))


def test_a_set_that_is_missing_is_refused_before_the_data_set_is_read(tmp_path: Path) -> None:
    """Reading a large data set takes minutes."""
    (tmp_path / "broken.npy").write_bytes(b"no array")
    with pytest.raises(BadData, match=r"absent\.npy does not exist$"):
        load(str(tmp_path / "broken.npy"), test_dataset=str(tmp_path / "absent.npy"))
    with pytest.raises(BadData, match="unknown data set 'mnits': did you mean mnist"):
        load(str(tmp_path / "broken.npy"), validation_dataset="mnits")


def test_paths_of_the_other_sets_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run finds them again from any folder; names stay names."""
    monkeypatch.chdir(tmp_path)
    npz(tmp_path / "b.npz", 3, seed=0)
    config = with_absolute_paths(Config(dataset="digits", test_dataset="b.npz", validation_dataset="digits"))
    assert (config.test_dataset, config.validation_dataset) == (str(tmp_path / "b.npz"), "digits")
