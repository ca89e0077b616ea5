"""Sources that are sent to another process, which opens the files itself."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from convvae_service.images import BadSource, ModelInput, Source, SourceOptions, open_source
from support.source_reading import read_source
from support.tar_file import write_tar

KINDS = ("folder", "tar", "parquet", "where", "npy", "npz")


@pytest.fixture
def opened(folder: Path, tmp_path: Path, images: NDArray[np.uint8]) -> Callable[[str], Source]:
    """Opens a source of a kind."""

    def open_kind(kind: str) -> Source:
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("class-*/[0-9]*.*"))
        files = [(name, (folder / name).read_bytes()) for name in names]
        labels: Any = np.arange(len(images))
        match kind:
            case "folder":
                return open_source(folder, SourceOptions(keep=("label",)))
            case "tar":
                return open_source(write_tar(tmp_path / "x.tar", files))
            case "parquet" | "where":
                table = pa.table({"image": [data for _, data in files], "row": range(len(files))})
                pq.write_table(table, tmp_path / "x.parquet", row_group_size=5)
                where = "row > 3" if kind == "where" else ""
                return open_source(tmp_path / "x.parquet", SourceOptions(keep=("row",), where=where))
            case "npy":
                np.save(tmp_path / "x.npy", images)
                return open_source(tmp_path / "x.npy")
            case _:
                np.savez_compressed(tmp_path / "x.npz", images=images, labels=labels)
                return open_source(tmp_path / "x.npz", SourceOptions(keep=("label",)))

    return open_kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickled_source_gives_the_same_rows(
    kind: str, opened: Callable[[str], Source], tiny_input: ModelInput
) -> None:
    """Its stamps are those of the sender, and its count is the number of its rows."""
    source = opened(kind)
    stamps = source.stamps
    shipped: Source = pickle.loads(pickle.dumps(source))
    one, two = read_source(source, tiny_input), read_source(shipped, tiny_input)
    assert one.ids == two.ids
    np.testing.assert_array_equal(one.images, two.images)
    assert {name: list(values) for name, values in one.kept.items()} == {
        name: list(values) for name, values in two.kept.items()
    }
    assert shipped.stamps == stamps == tuple(shard.stamp() for shard in shipped.shards)
    assert [shard.count() for shard in shipped.shards] == [len(one.ids) + len(one.rejected)]


def test_pixels_of_a_file_are_not_sent(opened: Callable[[str], Source], tmp_path: Path) -> None:
    """The receiver reads them, and refuses a file that is another by now."""
    sent = pickle.dumps(opened("npy"))
    assert len(sent) < 2000
    np.save(tmp_path / "x.npy", np.zeros((3, 8, 6, 7), np.uint8))
    received: Source = pickle.loads(sent)
    with pytest.raises(BadSource, match=r"x\.npy has the shape"):
        received.shards[0].open(0)


def test_a_file_is_opened_when_it_is_needed(
    tmp_path: Path, images: NDArray[np.uint8], tiny_input: ModelInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver goes to the sender's folder first, and reads the files alone that it has rows of."""
    np.save(tmp_path / "x.npy", images)
    monkeypatch.chdir(tmp_path)
    sent = pickle.dumps(open_source(Path("x.npy")))
    monkeypatch.chdir("/")
    received: Source = pickle.loads(sent)
    monkeypatch.chdir(tmp_path)
    assert len(read_source(received, tiny_input).ids) == len(images)
