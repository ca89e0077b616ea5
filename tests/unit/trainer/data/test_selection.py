"""Which images stand for a set that is sorted by class."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from convvae_trainer.compare import latent_scatter
from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.data.selection import drawn, lacking, varied
from convvae_trainer.evaluation.options import EvalOptions
from convvae_trainer.exports.graphs import DecoderGraph, EncoderGraph
from convvae_trainer.exports.pictures import bundle_pictures
from convvae_trainer.runs import fit
from convvae_trainer.runs.fit import Fitted
from convvae_trainer.runs.tensorboard import NUM_PICTURES, open_tensorboard
from convvae_trainer.settings.config import Config
from support.commands import evaluated
from support.tiny_run import TINY

SORTED = np.repeat(np.arange(5, dtype=np.int64), [10, 10, 10, 2, 1])


def test_rows_are_drawn_once_each() -> None:
    """They ascend, are the same for a seed, and are all rows where all are wanted."""
    assert drawn(6, 6).tolist() == drawn(6, 100).tolist() == list(range(6))
    some = drawn(1000, 20, seed=4)
    assert len(set(some.tolist())) == 20
    assert some.tolist() == sorted(some.tolist()) == drawn(1000, 20, seed=4).tolist()
    assert some.tolist() != drawn(1000, 20, seed=5).tolist()
    assert some.max() > 500


def test_varied_rows_are_of_many_classes() -> None:
    """Each class has its turn before one has a second; one that has no more images leaves its place."""
    for seed in range(3):
        for limit, expected in ((5, [1] * 5), (9, [2, 2, 2, 2, 1]), (12, [3, 3, 3, 2, 1])):
            rows = varied(len(SORTED), SORTED, limit, seed=seed)
            assert np.bincount(SORTED[rows]).tolist() == expected
    assert varied(len(SORTED), None, 7, seed=3).tolist() == drawn(len(SORTED), 7, seed=3).tolist()


def test_classes_that_are_missing_are_counted() -> None:
    """Nothing is said where none is missing, or where there are no labels."""
    assert lacking(SORTED, 12) == "of 2 of the 5 classes"
    assert lacking(SORTED, 33) == lacking(None, 3) == ""


def test_planes_take_images_of_all_classes() -> None:
    """A set of more images than a plane takes gives some images of all its parts, with their labels."""
    count = latent_scatter.MAX_IMAGES + 2000
    labels = np.repeat(np.arange(2, dtype=np.int64), [latent_scatter.MAX_IMAGES, 2000])
    images = np.broadcast_to(labels[:, None, None, None], (count, 8, 8, 1)).astype(np.uint8)
    dataset = Dataset(name="x", split="", train=images, test=images, train_labels=labels)
    small = latent_scatter._reduced(dataset)
    assert small.train_labels is not None
    np.testing.assert_array_equal(small.train[:, 0, 0, 0], small.train_labels)
    assert (len(small.train), len(small.test)) == (latent_scatter.MAX_IMAGES, latent_scatter.MAX_POINTS)
    assert set(small.train_labels.tolist()) == set(small.test[:, 0, 0, 0].tolist()) == {0, 1}


def sorted_tests(dataset: Dataset, classes: int = 3) -> Dataset:
    """Return test images in one grey level a class, class after class."""
    labels = np.repeat(np.arange(classes, dtype=np.int64), 40)
    levels = (labels * 100).astype(np.uint8)
    test = np.repeat(levels[:, None, None, None], dataset.image.num_values, 1).reshape(
        -1, *dataset.image.as_tuple
    )
    return dataclasses.replace(dataset, test=test, test_labels=labels)


def test_published_pictures_are_of_all_classes(fitted: tuple[Fitted, Dataset]) -> None:
    """A bundle's reconstructions stand below test images of every class."""
    done, dataset = fitted
    modules: Any = {
        "encoder": EncoderGraph(done.train_state.model),
        "decoder": DecoderGraph(done.train_state.model, done.train_state.likelihood),
    }
    with torch.no_grad():
        pictures = bundle_pictures(modules, sorted_tests(dataset), latent_dim=4)
    levels = np.asarray(Image.open(io.BytesIO(pictures["reconstructions.png"])))
    assert {0, 100, 200} <= set(levels.ravel().tolist())


def test_the_boards_pictures_are_of_all_classes(
    fitted: tuple[Fitted, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorBoard shows test images of every class, equally many."""
    done, dataset = fitted
    shown: list[np.ndarray[Any, np.dtype[np.uint8]]] = []

    def note(folder: Path, train_state: Any, images: Any, **rest: Any) -> Any:
        shown.append(images)
        return open_tensorboard(folder, train_state, images, **rest)

    monkeypatch.setattr(fit, "open_tensorboard", note)
    data = sorted_tests(dataset, 2)
    fit.fit(dataclasses.replace(done.run.config, epochs=1), data, done.run.path.with_name("board"))
    assert np.bincount(shown[0][:, 0, 0, 0]).tolist()[::100] == [NUM_PICTURES // 2] * 2


def test_a_limit_that_leaves_classes_out_is_said(tmp_path: Path) -> None:
    """`--limit-images` takes the first images; of a folder that is evaluated whole these are of one class."""
    for shift, split in enumerate(("train", "other")):
        for name, level in (("a", 0), ("b", 200)):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(20):
                picture = Image.new("L", (10, 12), level + number + 25 * shift)
                picture.save(tmp_path / split / name / f"{number:02}.png")
    config = Config(dataset=str(tmp_path / "train"), tensorboard=False, **{**TINY, "epochs": 1})
    fit.fit(config, load_dataset(config), tmp_path / "run")

    def said(limit: int) -> str:
        console = Console(file=io.StringIO(), width=200)
        options = EvalOptions(importance_samples=1, limit_images=limit)
        evaluated(tmp_path / "run", dataset=str(tmp_path / "other"), options=options, console=console)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    words = "the first 5 test images are of 1 of the 2 classes: log p(x) is of these alone"
    assert words in said(5)
    assert "classes" not in said(21)
