"""The same calls to a model in this process and to a server give the same results."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convvae import Client, InvalidInput
from convvae_service import open_model
from support.serving import serving
from support.tiny_bundle import LATENT_DIM, SHAPE

IMAGES = np.random.default_rng(0).integers(0, 256, (40, *SHAPE.as_tuple), np.uint8)
LATENTS = np.random.default_rng(1).standard_normal((40, LATENT_DIM), np.float32)


def test_results_are_those_of_a_server(tiny_root: Path, tmp_path: Path) -> None:
    """Every method returns the same class; images are equal within a step, numbers within rounding."""
    Image.fromarray(IMAGES[0, ..., 0]).resize((60, 80)).save(tmp_path / "large.jpg")
    with (
        serving(tiny_root) as server,
        Client(server.target, model="tiny") as client,
        open_model(tiny_root / "tiny", device="cpu") as model,
    ):
        calls: list[tuple[str, dict[str, Any]]] = [
            ("encode", {"images": IMAGES, "include_log_variance": True}),
            ("encode", {"images": tmp_path}),
            ("decode", {"latents": LATENTS}),
            ("sample", {"count": 40, "seed": 2**64 - 1, "temperature": 0.7, "first_row": 5}),
            ("reconstruct", {"images": Image.open(tmp_path / "large.jpg")}),
            ("score", {"images": IMAGES}),
            ("score", {"images": IMAGES, "num_samples": 3, "seed": 7, "first_row": 9}),
        ]
        for method, arguments in calls:
            theirs, ours = (getattr(each, method)(**arguments) for each in (client, model))
            assert type(ours) is type(theirs)
            for name, value in vars(theirs).items():
                mine = getattr(ours, name)
                if not isinstance(value, np.ndarray):
                    assert mine == value, (method, name)
                    continue
                assert (mine.dtype, mine.shape) == (value.dtype, value.shape)
                step = 1 if value.dtype == np.uint8 else 1e-5
                np.testing.assert_allclose(mine, value, rtol=1e-4, atol=step, err_msg=f"{method} {name}")


def test_refusals_are_those_of_a_server(tiny_root: Path, tmp_path: Path) -> None:
    """Bad files are refused with the same class and rows, by their paths."""
    Image.fromarray(IMAGES[0, ..., 0]).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    with (
        serving(tiny_root) as server,
        Client(server.target, model="tiny") as client,
        open_model(tiny_root / "tiny", device="cpu") as model,
    ):
        found = []
        for each in (client, model):
            with pytest.raises(InvalidInput) as caught:
                each.encode(str(tmp_path))
            found.append((type(caught.value), caught.value.message, caught.value.violations))
    assert found[0] == found[1]
    assert str(tmp_path / "b.png") in found[0][1]
