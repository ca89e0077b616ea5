"""Encoded batches: how they are divided where a part ends."""

import numpy as np
import pyarrow as pa
import pytest

from convvae_service.images import RejectedRow
from convvae_service.pipeline.encoded_batches import EncodedBatch
from convvae_service.pipeline.encoder import Embeddings
from convvae_service.pipeline.sink import EncodedRows

IMAGES = 6
BAD = (1, 2, 5)


@pytest.mark.parametrize("count", range(IMAGES + 1))
def test_a_batch_is_divided_in_the_order_of_its_images(count: int) -> None:
    """Rows, columns and images that could not be read go to the side that they are on."""
    good = [row for row in range(IMAGES) if row not in BAD]
    mean = np.array(good, np.float32)[:, None]
    rows = EncodedRows(
        [str(row) for row in good],
        Embeddings(mean, None, mean[:, 0]),
        {"kept": pa.array(good)},
        [b"x"] * len(good),
    )
    batch = EncodedBatch(rows, tuple(RejectedRow(str(row), "bad", row) for row in BAD))
    first, others = batch.divided(count)
    assert (len(first), len(others)) == (count, IMAGES - count)
    for part, expected in ((first, range(count)), (others, range(count, IMAGES))):
        its_good = [row for row in expected if row not in BAD]
        assert [int(row.id) for row in part.rejected] == [row for row in expected if row in BAD]
        assert [row.place for row in part.rejected] == [int(row.id) - expected[0] for row in part.rejected]
        if not its_good:
            assert part.rows is None
            continue
        assert part.rows is not None
        assert part.rows.ids == [str(row) for row in its_good]
        assert part.rows.embeddings.mean[:, 0].tolist() == its_good
        assert part.rows.embeddings.log_variance is None
        assert part.rows.embeddings.distortion is not None
        assert part.rows.embeddings.distortion.tolist() == its_good
        assert part.rows.kept["kept"].to_pylist() == its_good
        assert len(part.rows.thumbnails) == len(its_good)
