"""The encoder of a bundle in this process."""

from pathlib import Path

import numpy as np
import pytest

from convvae_service.bundle import ImageShape, read_bundle
from convvae_service.engine.runtime import choose_provider, make_session
from convvae_service.pipeline.local import CPU_CALL_ROWS, LocalEncoder, batch_rows_on_cpu


@pytest.mark.parametrize("count", [1, CPU_CALL_ROWS, 3 * CPU_CALL_ROWS + 1])
def test_a_batch_of_any_length_has_the_rows_of_one_call(tiny_root: Path, count: int) -> None:
    """Calls of few rows are faster; who encodes sees one array for each column."""
    folder = tiny_root / "tiny" / "1"
    encoder = LocalEncoder(folder, device="cpu", threads=1)
    images = np.random.default_rng(count).integers(0, 256, (count, 8, 6, 1), np.uint8)
    data = read_bundle(folder).graphs["encoder", "fp32"]
    session = make_session(data, name="encoder.onnx", provider=choose_provider("cpu"), threads=1)
    mean_BZ, log_variance_BZ = session.run(["mean", "log_variance"], {"image": images})
    found = encoder.encode(images, log_variance=True, score=True)
    np.testing.assert_allclose(found.mean, mean_BZ, atol=1e-6)
    assert found.log_variance is not None
    np.testing.assert_allclose(found.log_variance, log_variance_BZ, atol=1e-6)
    assert found.distortion is not None
    assert found.rate is not None
    assert found.distortion.shape == found.rate.shape == (count,)
    rate_B = 0.5 * (mean_BZ**2 + np.exp(log_variance_BZ) - log_variance_BZ - 1).sum(axis=1)
    np.testing.assert_allclose(found.rate, rate_B, rtol=1e-4)
    plain = encoder.encode(images, log_variance=False)
    np.testing.assert_array_equal(plain.mean, found.mean)
    assert plain[1:] == (None, None, None)


@pytest.mark.parametrize(
    ("side", "channels", "rows"),
    [(8, 1, 512), (28, 1, 512), (32, 3, 512), (48, 3, 227), (64, 3, 128), (512, 3, 128)],
)
def test_small_images_are_encoded_many_at_a_time(side: int, channels: int, rows: int) -> None:
    """The pixels of a batch are at most 1.5 MiB, unless 128 images have more."""
    assert batch_rows_on_cpu(ImageShape(height=side, width=side, channels=channels)) == rows
