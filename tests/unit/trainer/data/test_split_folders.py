"""Folders that name the parts of a data set: which are read as such, and which mixtures are refused."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convvae_trainer.data.dataset import Dataset, load_dataset, load_other
from convvae_trainer.data.split_folders import Part, part_named
from convvae_trainer.errors import BadData
from convvae_trainer.settings.config import Config


def write(folder: Path, count: int, *, level: int = 0) -> None:
    """Write `count` different grey images, none of which another level has."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.full((10, 12), level, np.uint8)
        pixels[0, :2] = divmod(number, 256)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")


def load(folder: Path, **settings: Any) -> Dataset:
    return load_dataset(Config(dataset=str(folder), **settings))


def levels(images: Any) -> set[int]:
    return set(images[:, 9, 11, 0].tolist())


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("train", "train TRAIN Training train_set train-images trainset images_train train2017 01_train"),
        ("validation", "val Val valid validation validate dev val2017 ValidationSet val_imgs"),
        ("test", "test TEST Testing test_data eval Evaluation test2017 img_test hold-out"),
        (None, "cat trains trainer testament value validity images data 2017 t est_imate devil"),
    ],
)
def test_usual_names_of_parts_are_known(part: Part | None, names: str) -> None:
    """Case, digits, signs and words such as `images` do not matter; other words that begin alike are none."""
    assert {part_named(name) for name in names.split(" ")} == {part}


def test_parts_are_kept_apart_and_the_level_below_gives_the_labels(tmp_path: Path) -> None:
    """Each image is in the part of its folder, the labels are the classes, and the run says what was read."""
    for level, (part, count) in enumerate({"train": 20, "val": 4, "test": 6}.items()):
        write(tmp_path / part / "cat", count, level=10 * level + 1)
        write(tmp_path / part / "dog" / "deep", count, level=10 * level + 2)
    dataset = load(tmp_path)
    assert dataset.validation is not None
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (40, 8, 12)
    assert [levels(part) for part in (dataset.train, dataset.validation, dataset.test)] == [
        *({1, 2}, {11, 12}, {21, 22})
    ]
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train_labels is not None
    assert dataset.test_labels is not None
    np.testing.assert_array_equal(dataset.train_labels, dataset.train[:, 9, 11, 0] - 1)
    np.testing.assert_array_equal(dataset.test_labels, dataset.test[:, 9, 11, 0] - 21)
    assert dataset.split == (
        "the data set's own 12 test images; its folders train, val and test are read as its parts"
    )
    assert dataset.validation_split == "the data set's own 8 validation images"


def test_a_validation_part_is_tested_on_where_there_is_no_test_part(tmp_path: Path) -> None:
    """It then chooses no weights: images of the training part validate."""
    write(tmp_path / "train", 60, level=1)
    write(tmp_path / "valid", 10, level=2)
    dataset = load(tmp_path)
    assert dataset.validation is not None
    assert levels(dataset.test) == {2}
    assert levels(dataset.train) == levels(dataset.validation) == {1}
    assert len(dataset.train) + len(dataset.validation) == 60
    assert dataset.split.startswith(
        "the data set's own 10 validation images, since it has no test images; its folders train and valid"
    )


def test_a_training_part_alone_is_split_by_the_hash(tmp_path: Path) -> None:
    """Its classes are the folders below it."""
    write(tmp_path / "Train" / "cat", 30, level=1)
    write(tmp_path / "Train" / "dog", 30, level=2)
    dataset = load(tmp_path)
    assert "of 60 images are held out" in dataset.split
    assert dataset.split.endswith("; its folder Train is read as a part")
    assert dataset.class_names == ("cat", "dog")


def test_no_image_is_in_two_parts(tmp_path: Path) -> None:
    """Parts that anyone may have filled may share pictures: those of training are in no other part."""
    write(tmp_path / "train", 20, level=1)
    write(tmp_path / "val", 6, level=2)
    write(tmp_path / "test", 5, level=3)
    for copy, original in (("val/x", "train/000"), ("val/y", "test/000"), ("test/x", "train/001")):
        (tmp_path / f"{copy}.png").write_bytes((tmp_path / f"{original}.png").read_bytes())
    dataset = load(tmp_path)
    assert dataset.validation is not None
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (20, 6, 5)
    assert "; 1 of them is left out, a copy of a training image" in dataset.split
    assert dataset.validation_split == (
        "the data set's own 8 validation images; 1 of them is left out, a copy of a training image; 1 of them"
        " is left out, a copy of a test image"
    )


def test_no_validation_leaves_the_own_validation_part_out(tmp_path: Path) -> None:
    """A share of 0 validates nothing, and the part is not trained on either; another share is refused."""
    for level, part in enumerate(("train", "val", "test")):
        write(tmp_path / part, 9, level=level)
    dataset = load(tmp_path, validation_share=0.0)
    assert (dataset.validation, levels(dataset.train), len(dataset.train)) == (None, {0}, 9)
    with pytest.raises(BadData, match=r"validation_share is 0\.1, but .* has 9 validation images of its own"):
        load(tmp_path, validation_share=0.1)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("val", "test"), "holds val and test, and no folder of training images: add a folder named train"),
        (("test",), r"give --dataset \S*/test to train on that one"),
        (
            ("train", "test", "extra"),
            r"beside extra: move these away, or name the parts: --dataset \S*/train --test-dataset \S*/test$",
        ),
        (("cat", "dog", "test"), "holds test, named as the parts of a data set, beside cat and dog"),
        (("train", "train_images", "test"), "holds train and train_images, which all name the train part"),
        (("train", "test", "eval"), "holds eval and test, which all name the test part"),
    ],
)
def test_folders_that_leave_a_doubt_are_refused(
    tmp_path: Path, folders: tuple[str, ...], message: str
) -> None:
    """The line names the folders, and the error comes before any file is decoded."""
    for folder in folders:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "broken.png").write_bytes(b"no image")
    with pytest.raises(BadData, match=message) as raised:
        load(tmp_path)
    assert "\n" not in str(raised.value)


def test_pictures_beside_the_parts_are_refused(tmp_path: Path) -> None:
    """They would belong to no part."""
    for part in ("train", "test"):
        write(tmp_path / part, 3)
    write(tmp_path, 1, level=9)
    with pytest.raises(
        BadData, match=r"holds train and test, named as the parts .* beside images in no folder"
    ):
        load(tmp_path)


def test_a_test_part_with_another_class_is_refused(tmp_path: Path) -> None:
    """A class may be missing from the test part, and none may be new."""
    for level, folder in enumerate(("train/cat", "train/dog", "test/dog")):
        write(tmp_path / folder, 5, level=level)
    dataset = load(tmp_path)
    assert dataset.test_labels is not None
    assert set(dataset.test_labels.tolist()) == {1}
    write(tmp_path / "test" / "bird", 2, level=7)
    with pytest.raises(BadData, match=r"/test has classes that the training images lack: bird$"):
        load(tmp_path)


def test_vehicles_may_have_a_class_named_train(tmp_path: Path) -> None:
    """Beside other classes it is one of them, and the run says so."""
    for level, folder in enumerate(("bus", "car", "train")):
        write(tmp_path / folder, 8, level=level)
    dataset = load(tmp_path)
    assert dataset.class_names == ("bus", "car", "train")
    assert dataset.hints == ["the folder train is read as a class, beside bus and car"]


def test_other_data_need_no_training_part(tmp_path: Path) -> None:
    """A model is evaluated on the test part of a folder, whatever other parts it has."""
    write(tmp_path / "val", 3, level=1)
    write(tmp_path / "test", 4, level=2)
    (images, _), split, _ = load_other(Config(dataset=str(tmp_path)), own="another")
    assert levels(images) == {2}
    assert split == "the data set's own 4 test images; its folders val and test are read as its parts"


@pytest.mark.parametrize(
    ("folders", "hint"),
    [
        (
            ("photos/cat", "photos/dog"),
            "all images have the label photos: --dataset {}/photos takes cat, dog as",
        ),
        (
            ("photos/train", "photos/test"),
            "{0}/photos holds parts of a data set, which are read together: --data",
        ),
        (
            ("cat/train", "cat/test", "dog/train"),
            "the folders cat/test, cat/train, dog/train look like parts of",
        ),
        (("images",), "all images have the label images, since all are in that folder"),
        (("cat", "dog"), None),
        (("cat/old", "dog/new"), None),
    ],
)
def test_a_folder_too_high_is_remarked(tmp_path: Path, folders: tuple[str, ...], hint: str | None) -> None:
    """Labels that are all equal, and parts below the first level, are most likely not meant."""
    for level, folder in enumerate(folders):
        write(tmp_path / folder, 6, level=level)
    hints = load(tmp_path).hints
    if hint is None:
        assert hints == []
    else:
        assert len(hints) == 1
        assert re.match(re.escape(hint.format(tmp_path)), hints[0])
