"""The checks of `compare`, which come before any work."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convvae_trainer.commands.compare import CompareOptions, load_data, run_compare
from convvae_trainer.compare.published import find_versions
from convvae_trainer.compare.sample import check_image_shape
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.errors import BadConfig, BadData


def test_data_of_another_shape_are_refused_before_work_starts(
    published_pair: tuple[Path, Dataset], tmp_path: Path
) -> None:
    """The line says which option brings them to the model's size; nothing is written."""
    root, _ = published_pair
    random = np.random.default_rng(0)
    np.save(tmp_path / "square.npy", random.integers(0, 256, (20, 16, 16), np.uint8))
    np.save(tmp_path / "colour.npy", random.integers(0, 256, (20, 12, 10, 3), np.uint8))
    for name, message in (
        ("square.npy", "are 16x16x1, images of blobs are 12x10x1: --image-size 12x10"),
        (
            "colour.npy",
            "are 12x10x3, images of blobs are 12x10x1: give data with the same number of channels",
        ),
    ):
        options = CompareOptions(
            models=[str(root / "blobs")], dataset=str(tmp_path / name), out=tmp_path / "out" / "report.html"
        )
        with pytest.raises(BadData) as raised:
            run_compare(options)
        assert message in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["report", "report.json", "folder.html"])
def test_a_report_that_cannot_be_written_is_refused_first(tmp_path: Path, name: str) -> None:
    """The file's name has to be an HTML file's, and free of folders; the models are not even looked for."""
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(BadConfig, match="--out"):
        run_compare(CompareOptions(models=["nowhere"], dataset="digits", out=tmp_path / name))


def test_files_are_compared_in_the_models_colours(
    published_pair: tuple[Path, Dataset], tmp_path: Path
) -> None:
    """A grey model takes colour files, as the service would."""
    folder = tmp_path / "colour"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (10, 12), (200, number, 0)).save(folder / f"{number}.png")
    published = find_versions([str(published_pair[0] / "blobs")])
    options = CompareOptions(models=(), dataset=str(folder), out=tmp_path / "report.html")
    dataset = load_data(options, published[0].manifest)
    check_image_shape(dataset, published[0].manifest.image, label=published[0].label)
    assert dataset.split.endswith("; all 4 pictures are in colour, read as grey")


def test_bad_and_large_files_have_the_flags_of_fit(
    published_pair: tuple[Path, Dataset], tmp_path: Path
) -> None:
    """A file that cannot be used is an error or is skipped, as in training."""
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(4):
        Image.new("L", (10, 12), 9 * number).save(folder / f"{number}.png")
    Image.new("L", (10, 13)).save(folder / "large.png")
    manifest = find_versions([str(published_pair[0] / "blobs")])[0].manifest
    options = CompareOptions(
        models=(), dataset=str(folder), out=tmp_path / "x.html", image_size=(12, 10), max_pixels=120
    )
    with pytest.raises(
        BadData, match=r"large\.png .*10x13 is more than the limit of 120 pixels: --max-pixels"
    ):
        load_data(options, manifest)
    dataset = load_data(replace(options, on_error="skip"), manifest)
    assert dataset.split.endswith("; 1 of 5 files cannot be used and were skipped")
