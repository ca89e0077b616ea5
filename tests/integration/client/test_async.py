"""`AsyncClient` against a real server."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

import convvae
from convvae import AsyncClient, Client, Health
from support.serving import ServerProcess, serving

IMAGES = np.random.default_rng(1).integers(0, 256, (40, 8, 6, 1), np.uint8)


async def test_answers_are_those_of_the_synchronous_client(tiny_server: ServerProcess) -> None:
    """Both clients return the same for every method."""
    async with AsyncClient(tiny_server.target, model="tiny") as vae:
        encoded, sampled, scored, rebuilt = await asyncio.gather(
            vae.encode(IMAGES, include_log_variance=True),
            vae.sample(16, seed=7),
            vae.score(IMAGES, num_samples=2, seed=1),
            vae.reconstruct(IMAGES),
        )
        decoded = await vae.decode(encoded.mean)
        models, about, health = await vae.models(), await vae.model(), await vae.health("tiny")
    with Client(tiny_server.target, model="tiny") as same:
        assert np.allclose(same.encode(IMAGES).mean, encoded.mean, atol=1e-5)
        assert np.array_equal(same.sample(16, seed=7).latents, sampled.latents)
        assert np.allclose(same.score(IMAGES, num_samples=2, seed=1).elbo, scored.elbo, rtol=1e-4)
        assert (same.models(), same.model()) == (models, about)
    assert np.abs(decoded.images.astype(int) - rebuilt.images).max() <= 1
    assert health is Health.SERVING


@pytest.mark.usefixtures("each_front")
async def test_large_calls_side_by_side(tiny_root: Path) -> None:
    """Several cut calls of one client run at once, each with its own rows."""
    with serving(tiny_root, "--max-rows-per-call", "7") as server:
        async with AsyncClient(server.target) as vae:
            whole = (await vae.encode(IMAGES)).mean
            parts = await asyncio.gather(*(vae.encode(np.roll(IMAGES, shift, 0)) for shift in range(8)))
    for shift, part in enumerate(parts):
        assert np.allclose(part.mean, np.roll(whole, shift, 0), atol=1e-5)


async def test_cancelled_call_harms_nobody(tiny_server: ServerProcess) -> None:
    """After a task was cancelled in the middle of a large call, the client goes on."""
    async with AsyncClient(tiny_server.target) as vae:
        await vae.model()
        task = asyncio.create_task(vae.encode(np.zeros((100_000, 8, 6, 1), np.uint8)))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await vae.encode(IMAGES)).mean.shape == (40, 4)


async def test_errors_are_those_of_the_synchronous_client(zoo_server: ServerProcess) -> None:
    """The server's refusals become the same exceptions."""
    async with AsyncClient(zoo_server.target, model="plain") as vae:
        with pytest.raises(convvae.NotPossible):
            await vae.sample(1)
        with pytest.raises(convvae.NotFound):
            await vae.sample(1, model="nobody")
        with pytest.raises(convvae.InvalidInput, match=r"files\[1\]"):
            await vae.encode([_PNG, b"no image"])


def _png() -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(IMAGES[0, ..., 0]).save(file, "PNG")
    return file.getvalue()


_PNG = _png()
