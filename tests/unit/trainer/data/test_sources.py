"""The digits of scikit-learn, read from its file."""

import subprocess
import sys
from importlib import metadata
from typing import Literal

import numpy as np
import pytest
from sklearn.datasets import load_digits

from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.data.sources import resize_of
from convvae_trainer.errors import MissingExtra
from convvae_trainer.settings.config import Config


def digits() -> Dataset:
    return load_dataset(Config(dataset="digits", image_size=(8, 8), validation_share=0.0))


def images_and_labels(dataset: Dataset) -> list[tuple[bytes, int]]:
    """Return images and labels in an order of their own, whatever the split."""
    assert dataset.train_labels is not None
    assert dataset.test_labels is not None
    images = np.concatenate((dataset.train, dataset.test))
    labels = np.concatenate((dataset.train_labels, dataset.test_labels))
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


def test_digits_are_those_of_scikit_learn() -> None:
    """Every image and its label equal what scikit-learn returns, with levels of 0 to 255."""
    bunch = load_digits()
    levels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    expected = sorted((i.tobytes(), int(label)) for i, label in zip(levels, bunch.target, strict=True))
    assert images_and_labels(digits()) == expected


def test_digits_are_the_same_without_a_list_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages of some systems list no files: scikit-learn itself then returns the same images."""
    expected = images_and_labels(digits())
    monkeypatch.setattr(metadata, "files", lambda _: None)
    assert images_and_labels(digits()) == expected


def test_missing_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without scikit-learn the error says what to install."""

    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    with pytest.raises(MissingExtra, match=r"convvae\[trainer\]"):
        digits()


def test_digits_need_no_import_of_scikit_learn() -> None:
    """The import takes a second of the start of a run."""
    code = (
        "import sys\n"
        "from convvae_trainer.data.dataset import load_dataset\n"
        "from convvae_trainer.settings.config import Config\n"
        "load_dataset(Config(dataset='digits'))\n"
        "print('sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("dataset", "asked", "stated"),
    [
        ("./photos", "scaled", "scaled"),
        ("./photos", "full", "full"),
        ("images.npy", "scaled", "scaled"),
        ("digits", "scaled", "scaled"),
        ("flowers102", "scaled", "full"),
    ],
)
def test_the_manifest_says_how_jpeg_files_were_decoded(
    dataset: str, asked: Literal["full", "scaled"], stated: str
) -> None:
    """Pictures that torchvision decodes are full ones, and other files follow the setting."""
    assert resize_of(Config(dataset=dataset, resize_decode=asked)).decode == stated
