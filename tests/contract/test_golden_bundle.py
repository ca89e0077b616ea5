"""A bundle of schema version 1, checked in: every later version must read it and give the same numbers."""

import shutil
from pathlib import Path

import numpy as np

from convvae_service.api.noise import latent_noise
from convvae_service.bundle import read_bundle
from convvae_service.engine.stages import Engine
from convvae_service.repository.check import check_repository

GOLDEN = Path(__file__).parents[1] / "golden" / "schema-1"


def test_the_golden_bundle_is_read(tmp_path: Path) -> None:
    """Manifest, graphs and answers of the golden bundle are what they were when it was made."""
    folder = GOLDEN / "golden" / "1"
    bundle = read_bundle(folder)
    manifest = bundle.manifest
    assert (manifest.schema_version, manifest.model, manifest.objective) == (1, "golden", "vae")
    assert (manifest.image.as_tuple, manifest.latent_dim) == ((8, 6, 1), 4)
    assert manifest.likelihood.probability_clamp == 1e-6
    answers = np.load(GOLDEN / "answers.npz", allow_pickle=False)
    engine = Engine(bundle, device="cpu")
    mean, log_variance = engine.encode.run((answers["images"],))
    np.testing.assert_allclose(mean, answers["mean"], atol=1e-5)
    np.testing.assert_allclose(log_variance, answers["log_variance"], atol=1e-5)
    latents = latent_noise(7, first_row=0, count=4, dimension=4)
    np.testing.assert_array_equal(latents, answers["latents"])
    (decoded,) = engine.decode.run((latents,))
    assert np.abs(decoded.astype(int) - answers["decoded"]).max() <= 1
    (distortion,) = engine.distort.run((answers["mean"], answers["images"]))
    np.testing.assert_allclose(distortion, answers["distortion"], rtol=1e-5)


def test_the_golden_repository_is_sound(tmp_path: Path) -> None:
    """The offline check passes it, and finds a fault that is put in."""
    shutil.copytree(GOLDEN, tmp_path / "root")
    assert [finding.error for finding in check_repository(tmp_path / "root")] == [""]
    (tmp_path / "root" / "golden" / "1" / "decoder.onnx").unlink()
    assert [finding.error for finding in check_repository(tmp_path / "root")] == ["decoder.onnx is missing"]
