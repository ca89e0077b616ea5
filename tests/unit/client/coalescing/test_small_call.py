"""Which calls are joined, and the operation on the rows of several."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convvae.calls.image_operations import Encode, Reconstruct, Score
from convvae.calls.latent_operations import Decode, Sample
from convvae.coalescing.small_call import MAX_BYTES, MAX_ROWS, join, small_call
from convvae.inputs.given_images import check_images
from convvae.inputs.images import FileImages, PixelImages
from support.spoilt_servicer import images

LATENTS = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    "operation",
    [
        Sample(2, None, 1.0, 0),
        Sample(2, 7, 1.0, 0),
        Sample(2, None, 0.0, 0),
        Score(PixelImages(images(2)), num_samples=1),
        Score(PixelImages(images(2)), num_samples=1, seed=7),
        Encode(PixelImages(images(MAX_ROWS + 1))),
        Encode(PixelImages(np.zeros((1, 1, MAX_BYTES + 1, 1), np.uint8))),
        Decode(np.zeros((MAX_ROWS + 1, 3), np.float32)),
        Decode(np.zeros((1, MAX_BYTES), np.float32)),
        Reconstruct(FileImages([bytes(MAX_BYTES)])),
        Reconstruct(FileImages([b"file"] * (MAX_ROWS + 1))),
        Reconstruct(FileImages([b""])),
        Encode(FileImages([Path("/does/not/exist")])),
        Encode(FileImages([b"file", Path("/")])),
    ],
    # Not their repr, which has addresses: every worker must find the same names.
    ids=lambda operation: type(operation).__name__,
)
def test_calls_that_are_sent_alone(operation: Any) -> None:
    """Draws, large calls and files that cannot be read are never joined."""
    assert small_call(operation) is None


def test_kinds_are_told_apart() -> None:
    """Calls with another method, option or form of their rows are of another kind."""
    pixels, flat, files = (check_images(x) for x in (images(1), images(1)[..., 0], [b"file"]))
    operations: list[Any] = [Decode(LATENTS), Decode(LATENTS[:, :2])]
    for rows in (pixels, flat, files):
        operations += [Encode(rows), Encode(rows, include_log_variance=True), Reconstruct(rows), Score(rows)]
    small = [small_call(operation) for operation in operations]
    assert None not in small
    assert len({call.kind for call in small if call}) == len(operations)
    again = small_call(Encode(PixelImages(images(7))))
    assert again is not None
    assert again.kind == small[2].kind  # type: ignore[union-attr]
    assert (again.rows, again.num_bytes) == (7, 7 * 12)


def test_files_are_read_by_their_own_caller(tmp_path: Path) -> None:
    """A small call has its files in memory, so that a slow file delays nobody else."""
    path = tmp_path / "a.png"
    path.write_bytes(b"content")
    small = small_call(Encode(FileImages([path, b"more"])))
    assert small is not None
    path.unlink()
    assert isinstance(small.operation, Encode)
    assert isinstance(small.operation.images, FileImages)
    assert small.operation.images.files == [b"content", b"more"]


@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=10))
def test_joined_rows_keep_their_order(counts: list[int]) -> None:
    """A joint operation has all rows, caller after caller, and the options of its kind."""
    total = sum(counts)
    starts = np.cumsum([0, *counts])
    parts = [images(total)[a:b] for a, b in itertools.pairwise(starts)]
    joint = join([Encode(PixelImages(part), include_log_variance=True) for part in parts])
    assert isinstance(joint, Encode)
    assert joint.include_log_variance
    assert isinstance(joint.images, PixelImages)
    assert np.array_equal(joint.images.array, images(total))
    vectors = np.arange(2.0 * total, dtype=np.float32).reshape(total, 2)
    joint = join([Decode(vectors[a:b]) for a, b in itertools.pairwise(starts)])
    assert isinstance(joint, Decode)
    assert np.array_equal(joint.latents, vectors)
    names = [bytes([row]) for row in range(total)]
    joint = join([Reconstruct(FileImages(names[a:b])) for a, b in itertools.pairwise(starts)])
    assert isinstance(joint, Reconstruct)
    assert isinstance(joint.images, FileImages)
    assert joint.images.files == names


def test_joined_scores_have_no_seed() -> None:
    """Seeds and row indices, which mean nothing without draws, are not taken from one of the callers."""
    callers = [Score(PixelImages(images(1)), 0, seed, 2**64 - 1) for seed in (1, 2)]
    joint = join(callers)
    assert isinstance(joint, Score)
    assert (joint.rows, joint.seed, joint.first_row) == (2, None, 0)
