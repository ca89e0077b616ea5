"""A worker on Ray, called in this process as Ray Data calls it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convvae_service.bundle import ImageShape
from convvae_service.images import SourceChanged, SourceOptions, open_sources
from convvae_service.pipeline.distributed.pieces import TO_END, Piece
from convvae_service.pipeline.distributed.worker import Item, PlacedBatch, ShardEnd, Worker, WorkerJob
from convvae_service.pipeline.errors import BadModel
from convvae_service.pipeline.local import LocalEncoder
from convvae_service.pipeline.sink import Columns
from support.tiny_bundle import publish_tiny

ROWS = 400
SIDE = 48


@pytest.fixture(autouse=True)
def _current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go back to the current folder at the end, since a worker changes it."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def array(tmp_path: Path) -> Path:
    """An .npy file of noise, whose pictures are as large as PNG files can be."""
    path = tmp_path / "x.npy"
    images = np.random.default_rng(0).integers(0, 256, (ROWS, SIDE, SIDE, 3), dtype=np.uint8)
    np.save(path, images)
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A model for these images."""
    publish_tiny(tmp_path, "noise", shape=ImageShape(height=SIDE, width=SIDE, channels=3))
    return tmp_path / "noise" / "1"


def job_of(array: Path, bundle: Path, *, thumbnail: bool = False) -> WorkerJob:
    """Return the encoding of the array in eight batches."""
    source = open_sources([str(array)], SourceOptions())
    assert len(source.stamps) == 1
    return WorkerJob(
        source=source,
        current_folder=str(array.parent),
        bundle=bundle,
        info=LocalEncoder(bundle, device="cpu").info,
        device="cpu",
        threads=1,
        batch_rows=50,
        columns=Columns(thumbnail=thumbnail),
    )


def sent(worker: Worker, *pieces: Piece) -> list[list[Item]]:
    """Return the items of each object that the worker gives to Ray."""
    columns = {name: np.array([getattr(piece, name) for piece in pieces]) for name in Piece._fields}
    return [group for row in worker(columns) for group in row["items"]]


def test_pictures_are_sent_in_smaller_groups(array: Path, bundle: Path) -> None:
    """Many batches are sent at once, but only about a megabyte of pictures: memory stays small."""
    (vectors,) = sent(Worker(job_of(array, bundle)), Piece(0, 0, TO_END))
    pictures = sent(Worker(job_of(array, bundle, thumbnail=True)), Piece(0, 0, TO_END))
    assert [len(group) for group in pictures] == [3, 3, 3]
    for items in (vectors, [item for group in pictures for item in group]):
        assert [item.position.row for item in items if isinstance(item, PlacedBatch)] == list(
            range(0, 400, 50)
        )
        assert isinstance(items[-1], ShardEnd)


def test_a_changed_source_is_an_item(array: Path, bundle: Path) -> None:
    """The error reaches the command as it is, since the shard is not the one that the run began with."""
    job = job_of(array, bundle)
    array.touch()
    ((error,),) = sent(Worker(job), Piece(0, 0, 50))
    assert isinstance(error, SourceChanged)
    assert str(error).startswith("x.npy has changed since the run began, or is another on ")


def test_another_bundle_is_an_item(array: Path, bundle: Path) -> None:
    """The worker names its machine, and the two encoders."""
    job = job_of(array, bundle)
    publish_tiny(bundle.parent.parent, "noise", shape=ImageShape(height=SIDE, width=SIDE, channels=3), seed=1)
    ((error,),) = sent(Worker(replace(job, bundle=bundle.parent / "2")), Piece(0, 0, 50))
    assert isinstance(error, BadModel)
    assert f"where the run began with {job.info.sha256[:12]}" in str(error)
    ((error,),) = sent(Worker(replace(job, bundle=bundle.parent / "3")), Piece(0, 0, 50))
    assert str(error).endswith("it must have the same path on every node")
