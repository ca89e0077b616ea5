"""The table of sources."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from convvae_service.images import BadSource, ImageBatch, LeftOut, ModelInput, open_source
from convvae_service.images import source_kinds as table


class SolidSource:
    """A source of images of one grey level each, listed in a text file: a kind that a test adds."""

    left_out = LeftOut()

    def __init__(self, path: Path, max_pixels: int) -> None:
        del max_pixels
        self.name = path.name
        self._levels: Sequence[int] = [int(line) for line in path.read_text().split()]

    def __len__(self) -> int:
        return len(self._levels)

    def check(self, model_input: ModelInput) -> None:
        del model_input

    def read(self, rows: range, model_input: ModelInput) -> ImageBatch:
        images = [np.full(model_input.shape.as_tuple, self._levels[row], np.uint8) for row in rows]
        return ImageBatch(ids=[str(row) for row in rows], images=np.stack(images))


def test_a_new_kind_is_one_class_and_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_input: ModelInput
) -> None:
    """A row in the table is all that a new source needs to be opened by its path."""
    path = tmp_path / "greys.levels"
    path.write_text("0 128 255")
    with pytest.raises(
        BadSource, match=r"greys\.levels is not a source: give a folder of images, or an .npy"
    ):
        open_source(path)
    row = table.SourceKind("a list of grey levels", lambda path: path.suffix == ".levels", SolidSource)
    monkeypatch.setattr(table, "SOURCE_KINDS", (*table.SOURCE_KINDS, row))
    source = open_source(path)
    assert (source.name, len(source)) == ("greys.levels", 3)
    assert source.read(range(1, 3), tiny_input).images[:, 0, 0, 0].tolist() == [128, 255]
    (tmp_path / "x.gif").touch()
    with pytest.raises(BadSource, match="or a list of grey levels"):
        open_source(tmp_path / "x.gif")


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    """A path that does not exist is refused as such, whatever its name."""
    with pytest.raises(BadSource, match=r"source '.*missing.npy' does not exist"):
        open_source(tmp_path / "missing.npy")
