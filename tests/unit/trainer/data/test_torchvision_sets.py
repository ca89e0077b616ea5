"""torchvision's data sets by name."""

import io
import struct
import tracemalloc
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import decode_file
from convvae_trainer.data.dataset import load_dataset
from convvae_trainer.data.torchvision_sets import find_set, near_names, read_set
from convvae_trainer.errors import BadData
from convvae_trainer.settings.config import Config


def idx_bytes(array: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def read(cls: Any, **arguments: Any) -> Any:
    given: dict[str, Any] = {"root": Path(), "download": False, "image_size": None, "resize": Resize()}
    return read_set(cls, **(given | arguments))[:2]


@pytest.mark.parametrize("name", ["fashion-mnist", "FashionMNIST", "FASHION_MNIST", "fashion mnist"])
def test_names_ignore_case_and_dashes(name: str) -> None:
    """A set is found however its name is written."""
    assert find_set(name) is torchvision.datasets.FashionMNIST


def test_near_names_help() -> None:
    """A misspelt name has near ones."""
    assert "cifar10" in near_names("cifar-01")
    assert find_set("cifar-01") is None


@pytest.mark.parametrize(
    ("name", "below"),
    [("mnist", "MNIST/raw"), ("cifar10", "cifar-10-batches-py"), ("svhn", ""), ("emnist", "EMNIST/raw")],
)
def test_absent_files_name_the_folder(tmp_path: Path, name: str, below: str) -> None:
    """When the files are not there, the message says where they were looked for, and what helps."""
    with pytest.raises(BadData) as raised:
        load_dataset(Config(dataset=name, data_root=str(tmp_path)))
    assert f"was not found in, or is damaged in, {tmp_path / below} (" in str(raised.value)
    assert "--data-root names the folder that holds it, --download fetches it" in str(raised.value)
    assert not any(tmp_path.rglob("*.gz"))


def test_idx_sets_read_with_their_own_split(tmp_path: Path) -> None:
    """A set with a test split of its own keeps it."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part, count in (("train", 12), ("t10k", 5)):
        images = np.full((count, 28, 28), count, dtype=np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(count, dtype=np.uint8)))
    dataset = load_dataset(Config(dataset="mnist", data_root=str(tmp_path), train_images=10))
    assert dataset.train.shape == (10, 28, 28, 1)
    assert dataset.test.shape == (5, 28, 28, 1)
    words = "the first 10 training images are used, which are of 10 of the 12 classes"
    assert dataset.split == f"the data set's own 5 test images; {words}"
    whole = load_dataset(Config(dataset="mnist", data_root=str(tmp_path), train_images=12))
    assert whole.split == "the data set's own 5 test images; the first 12 training images are used"
    assert dataset.test_labels is not None
    assert dataset.test_labels.tolist() == list(range(5))


def test_a_damaged_file_is_not_called_missing(tmp_path: Path) -> None:
    """The message has what torchvision found wrong, whichever kind of error it raised."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    for name, data in zip(names, (b"", b"x", b"\0\0\x08\x03", b""), strict=True):
        (folder / f"{name}-ubyte").write_bytes(data)
    with pytest.raises(BadData, match=r"MNIST is damaged in .*: invalid literal"):
        load_dataset(Config(dataset="mnist", data_root=str(tmp_path)))
    images = idx_bytes(np.zeros((3, 28, 28), np.uint8))
    (folder / "train-images-idx3-ubyte").write_bytes(images[:-5])
    with pytest.raises(BadData, match=r"or is damaged in, .*MNIST/raw \(shape "):
        load_dataset(Config(dataset="mnist", data_root=str(tmp_path)))


def test_a_folder_of_a_sets_name_needs_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name means torchvision's set; the message says how to name what lies here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist").mkdir()
    with pytest.raises(BadData, match=r"to read mnist in this folder instead, write \./mnist"):
        load_dataset(Config(dataset="mnist", data_root=str(tmp_path)))


class ChannelFirst:
    """Keeps its images as SVHN does, and takes `split`."""

    def __init__(self, root: str, split: str = "train") -> None:
        del root, split
        self.data = np.zeros((4, 3, 8, 10), dtype=np.uint8)
        self.labels = np.arange(4)


class Tensors:
    """Keeps a tensor, has no split."""

    def __init__(self, root: str) -> None:
        del root
        self.data = torch.ones(4, 8, 10, dtype=torch.uint8)


class Pictures:
    """Gives pictures one by one, of two sizes, and takes `train`."""

    def __init__(self, root: str, train: bool = True, download: bool = False) -> None:
        del root, train, download
        self.sizes = [(10, 8), (20, 16)]

    def __len__(self) -> int:
        return 2

    def __getitem__(self, number: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", self.sizes[number]), number


class Sounds(Pictures):
    """Gives no pictures."""

    def __getitem__(self, number: int) -> Any:
        return b"", number


class Validated:
    """Calls its parts as some sets do; notes when a part is opened and when a picture is read."""

    splits: tuple[str, ...] = ("train", "val")
    log: list[str]

    def __init__(self, root: str, split: str = "train", **folder: Any) -> None:
        del root
        # As torchvision's ImageNet: what else is given goes to a class that knows no `download`.
        if folder:
            raise TypeError(f"unexpected keyword arguments {list(folder)}")
        if split not in self.splits:
            raise ValueError(f"Unknown value {split!r} for argument split")
        self.log.append(split)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, number: int) -> tuple[Image.Image, int]:
        self.log.append("picture")
        return Image.new("RGB", (8, 9)), number


class Picky:
    """Cannot be made by name alone."""

    def __init__(self, root: str, annotations: str) -> None: ...


def test_layouts_become_one() -> None:
    """Channels first, tensors and pictures all become uint8 NHWC."""
    train, test = read(ChannelFirst)
    assert train[0].shape == (4, 8, 10, 3)
    assert train[1].tolist() == [0, 1, 2, 3]
    assert test is not None
    train, test = read(Tensors)
    assert train[0].shape == (4, 8, 10, 1)
    assert test is None
    train, test = read(Pictures, image_size=(9, 9))
    assert train[0].shape == (2, 9, 9, 3)


def test_pictures_take_the_memory_of_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are decoded to their place, not collected first."""
    monkeypatch.setattr(Pictures, "__len__", lambda _: 400)
    monkeypatch.setattr(Pictures, "__getitem__", lambda *_: (Image.new("RGB", (64, 64)), 0))
    tracemalloc.start()
    train, test = read(Pictures)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.3 * (train[0].nbytes + test[0].nbytes)


@pytest.mark.parametrize("splits", [("train", "val"), ("train", "valid"), ("train-standard", "val")])
def test_parts_of_other_names_are_found_first(
    splits: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set without a part called test is read by what it has; both are opened before one is decoded."""
    monkeypatch.setattr(Validated, "splits", splits)
    monkeypatch.setattr(Validated, "log", [], raising=False)
    train, test = read(Validated)
    assert train[0].shape == test[0].shape == (2, 9, 8, 3)
    assert Validated.log == [*splits, *["picture"] * 4]
    monkeypatch.setattr(Validated, "splits", ("train", "other"))
    monkeypatch.setattr(Validated, "log", [])
    with pytest.raises(BadData, match="cannot be read by its name alone: Unknown value 'test'"):
        read(Validated)
    assert Validated.log == ["train"]


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Pictures, "image 0 of Pictures is 8x10, image 1 of Pictures is 16x20; give --image-size"),
        (Sounds, "torchvision's Sounds holds bytes items, not images"),
        (Picky, "torchvision's Picky cannot be read by its name alone"),
    ],
)
def test_unusable_sets_are_refused(cls: Any, message: str) -> None:
    """A set that gives no images of one size is refused."""
    with pytest.raises(BadData) as raised:
        read(cls)
    assert message in str(raised.value)


class Mixed:
    """Gives pictures of many kinds one by one, the first of them grey."""

    def __init__(self, root: str) -> None:
        del root
        wide = np.linspace(0, 65535, 80).reshape(8, 10).astype(np.uint16)
        clear = Image.new("RGBA", (10, 8), (200, 100, 50, 0))
        colours = np.random.default_rng(0).integers(0, 256, (10, 8, 3), dtype=np.uint8)
        grey = Image.fromarray(colours[..., 0].T.copy())
        self.pictures = [grey, Image.fromarray(wide), clear, Image.fromarray(colours)]
        self.pictures[3].getexif()[0x0112] = 6

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, number: int) -> tuple[Image.Image, int]:
        return self.pictures[number], number


class Named(Mixed):
    """A set that names its classes."""

    classes: ClassVar[list[str]] = ["cat", "dog"]
    targets: ClassVar[list[int]] = [1, 0, 1, 1]


def test_a_sets_own_names_are_those_of_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that are too few for the labels, or absent, are none."""
    given: dict[str, Any] = {"root": Path(), "download": False, "image_size": None, "resize": Resize()}
    assert read_set(Named, **given).class_names == ("cat", "dog")
    assert read_set(Mixed, **given).class_names is None
    monkeypatch.setattr(Named, "targets", [0, 1, 2, 1])
    assert read_set(Named, **given).class_names is None


def test_pictures_become_what_the_service_makes_of_them_as_files() -> None:
    """Orientation, alpha, 16 bits and grey are treated as in a file of the same picture."""
    given: dict[str, Any] = {"root": Path(), "download": False, "image_size": None, "resize": Resize()}
    (images, _), _, note, _ = read_set(Mixed, **given)
    assert images.shape == (4, 8, 10, 3)
    assert note == "2 of 4 pictures are grey, read as RGB"
    shape = ImageShape(height=8, width=10, channels=3)
    for picture, image in zip(Mixed("").pictures[1:], images[1:], strict=True):
        file = io.BytesIO()
        picture.save(file, "PNG", exif=picture.getexif())
        np.testing.assert_array_equal(image, decode_file(file.getvalue(), shape=shape, resize=Resize()))
    (grey, _), _, note, _ = read_set(Mixed, **given, channels=1)
    assert grey.shape == (4, 8, 10, 1)
    assert note == "2 of 4 pictures are in colour, read as grey"


def test_a_picture_without_pixels_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that cannot be used ends the reading with its number."""
    monkeypatch.setattr(Pictures, "__getitem__", lambda *_: (Image.new("F", (8, 8)), 0))
    with pytest.raises(BadData, match="image 0 of Pictures cannot be used: floating-point pixels"):
        read(Pictures)
