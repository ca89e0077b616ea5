"""`convvae.v1.VaeService`: requests are checked, run in batches, and answered."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import numpy as np
from numpy.typing import NDArray

from convvae.v1 import vae_pb2, vae_pb2_grpc
from convvae_service.api.noise import draw_seed, latent_noise
from convvae_service.api.parse import (
    CallLimits,
    ImageRequest,
    ImageRows,
    read_images,
    read_latents,
    read_sample,
    read_score,
)
from convvae_service.api.serialize import describe_model, list_models, pixels, served_model, vectors
from convvae_service.batching.batcher import Batcher
from convvae_service.bundle import rate
from convvae_service.calls.runner import CallRunner, Context
from convvae_service.engine.cpus import available_cpus
from convvae_service.errors import CapabilityMissing
from convvae_service.observability.call import Call
from convvae_service.repository.catalog import LoadedVersion, Repository
from convvae_service.settings.serve import ServeSettings

__all__ = ["VaeServicer", "call_limits"]

# Room in a message for everything that is not rows.
_MESSAGE_OVERHEAD_BYTES = 4096
# Noise for a million values takes some 70 ms.
_MAX_NOISE_ON_THE_LOOP = 16_384


def call_limits(settings: ServeSettings, served: LoadedVersion) -> CallLimits:
    """Return the limits on one call to this version: as many rows as a message holds, request and reply.

    `max_rows` is 0 when not even one row fits into a message.
    """
    rows_a_message = (settings.max_message_bytes - _MESSAGE_OVERHEAD_BYTES) // _row_bytes(served)
    return CallLimits(
        max_rows=min(settings.max_rows_per_call, rows_a_message),
        max_message_bytes=settings.max_message_bytes,
        max_pixels_per_file=settings.max_pixels_per_file,
    )


def _row_bytes(served: LoadedVersion) -> int:
    """Return what a row takes at most in a message, and again in memory: an image and two latent vectors."""
    return served.manifest.image.num_values + 8 * served.manifest.latent_dim


class VaeServicer(vae_pb2_grpc.VaeServiceServicer):
    """Answers calls from the versions of a repository."""

    def __init__(
        self,
        *,
        settings: ServeSettings,
        repository: Repository,
        batcher: Batcher,
        runner: CallRunner,
        file_decoders: ThreadPoolExecutor,
    ) -> None:
        self._settings = settings
        self._repository = repository
        self._batcher = batcher
        self._runner = runner
        self._file_decoders = file_decoders
        # Read from files of the system: once, not for each call.
        self._cpus = available_cpus()

    async def Encode(self, request: vae_pb2.EncodeRequest, context: Context) -> vae_pb2.EncodeResponse:
        """Map images to the parameters of their posterior."""
        return await self._runner.answer("Encode", self._encode, request, context)

    async def Decode(self, request: vae_pb2.DecodeRequest, context: Context) -> vae_pb2.DecodeResponse:
        """Map latent vectors to images."""
        return await self._runner.answer("Decode", self._decode, request, context)

    async def Sample(self, request: vae_pb2.SampleRequest, context: Context) -> vae_pb2.SampleResponse:
        """Draw from the prior and decode."""
        return await self._runner.answer("Sample", self._sample, request, context)

    async def Reconstruct(
        self, request: vae_pb2.ReconstructRequest, context: Context
    ) -> vae_pb2.ReconstructResponse:
        """Encode images and decode their posterior means."""
        return await self._runner.answer("Reconstruct", self._reconstruct, request, context)

    async def Score(self, request: vae_pb2.ScoreRequest, context: Context) -> vae_pb2.ScoreResponse:
        """Compute the evidence lower bound of images."""
        return await self._runner.answer("Score", self._score, request, context)

    async def ListModels(
        self, request: vae_pb2.ListModelsRequest, context: Context
    ) -> vae_pb2.ListModelsResponse:
        """List models and versions."""
        return await self._runner.answer("ListModels", self._list_models, request, context)

    async def GetModel(self, request: vae_pb2.GetModelRequest, context: Context) -> vae_pb2.GetModelResponse:
        """Describe one version."""
        return await self._runner.answer("GetModel", self._get_model, request, context)

    async def _encode(self, request: vae_pb2.EncodeRequest, call: Call) -> vae_pb2.EncodeResponse:
        served = self._serve(request.model, "encode", call)
        async with self._images(self._read(request, served, call), served) as images:
            mean, *log_variance = await self._batcher.run(served.engine.encode, (images,))
        reply = vae_pb2.EncodeResponse(model=served_model(served), mean=vectors(mean))
        if request.include_log_variance and log_variance:
            reply.log_variance.CopyFrom(vectors(log_variance[0]))
        return reply

    async def _decode(self, request: vae_pb2.DecodeRequest, call: Call) -> vae_pb2.DecodeResponse:
        served = self._serve(request.model, "decode", call)
        limits = call_limits(self._settings, served)
        latents = read_latents(request.latents, dimension=served.manifest.latent_dim, limits=limits)
        call.rows = len(latents)
        with self._batcher.admit(rows=call.rows, num_bytes=latents.nbytes + call.rows * _row_bytes(served)):
            (images,) = await self._batcher.run(served.engine.decode, (latents,))
        return vae_pb2.DecodeResponse(model=served_model(served), images=pixels(images))

    async def _sample(self, request: vae_pb2.SampleRequest, call: Call) -> vae_pb2.SampleResponse:
        served = self._serve(request.model, "sample", call)
        count, temperature = read_sample(request, limits=call_limits(self._settings, served))
        seed = request.seed if request.HasField("seed") else draw_seed()
        dimension = served.manifest.latent_dim
        call.rows = count
        with self._batcher.admit(rows=count, num_bytes=count * _row_bytes(served)):
            noise = await _noise(seed, first_row=request.first_row, count=count, dimension=dimension)
            latents = noise * np.float32(temperature)
            (images,) = await self._batcher.run(served.engine.decode, (latents,))
        return vae_pb2.SampleResponse(
            model=served_model(served), images=pixels(images), latents=vectors(latents), seed=seed
        )

    async def _reconstruct(
        self, request: vae_pb2.ReconstructRequest, call: Call
    ) -> vae_pb2.ReconstructResponse:
        served = self._serve(request.model, "reconstruct", call)
        async with self._images(self._read(request, served, call), served) as images:
            mean, *_ = await self._batcher.run(served.engine.encode, (images,))
            (reconstructions,) = await self._batcher.run(served.engine.decode, (mean,))
        return vae_pb2.ReconstructResponse(model=served_model(served), images=pixels(reconstructions))

    async def _score(self, request: vae_pb2.ScoreRequest, call: Call) -> vae_pb2.ScoreResponse:
        served = self._serve(request.model, "score", call)
        rows = self._read(request, served, call)
        draws = read_score(request, rows=len(rows), limits=call_limits(self._settings, served))
        seed = request.seed if request.HasField("seed") else draw_seed()
        async with self._images(rows, served, draws=draws) as images:
            mean, log_variance = await self._batcher.run(served.engine.encode, (images,))
            if draws:
                noise = await _noise(
                    seed,
                    first_row=request.first_row * draws,
                    count=len(images) * draws,
                    dimension=served.manifest.latent_dim,
                )
                # z = mean + sigma * noise (Kingma and Welling 2013, section 2.4), an image's draws in a row.
                sigma = np.exp(0.5 * log_variance)
                latents = np.repeat(mean, draws, axis=0) + np.repeat(sigma, draws, axis=0) * noise
                repeated = np.repeat(images, draws, axis=0)
                (all_draws,) = await self._batcher.run(served.engine.distort, (latents, repeated))
                distortion = all_draws.reshape(len(images), draws).mean(axis=1, dtype=np.float64)
            else:
                (distortion,) = await self._batcher.run(served.engine.distort, (mean, images))
        rates = rate(mean, log_variance)
        reply = vae_pb2.ScoreResponse(
            model=served_model(served),
            elbo=(-(distortion + rates)).tolist(),
            distortion=distortion.tolist(),
            rate=rates.tolist(),
        )
        if draws:
            reply.seed = seed
        return reply

    async def _list_models(
        self, request: vae_pb2.ListModelsRequest, call: Call
    ) -> vae_pb2.ListModelsResponse:
        del request, call
        return list_models(self._repository.models)

    async def _get_model(self, request: vae_pb2.GetModelRequest, call: Call) -> vae_pb2.GetModelResponse:
        served = self._serve(request.model, "", call)
        return describe_model(served, settings=self._settings, limits=call_limits(self._settings, served))

    def _serve(self, model: vae_pb2.ModelRef, capability: str, call: Call) -> LoadedVersion:
        served = call.held.enter_context(self._repository.lease(model.name, model.version))
        call.model, call.version = served.name, served.version
        if capability and capability not in served.manifest.capabilities:
            raise CapabilityMissing(
                f"model {served.name!r} ({served.manifest.objective}) cannot {capability}:"
                f" it can {', '.join(served.manifest.capabilities)}"
            )
        return served

    def _read(self, request: ImageRequest, served: LoadedVersion, call: Call) -> ImageRows:
        limits = call_limits(self._settings, served)
        rows = read_images(request, shape=served.manifest.image, limits=limits)
        call.rows = len(rows)
        return rows

    @asynccontextmanager
    async def _images(
        self, rows: ImageRows, served: LoadedVersion, *, draws: int = 0
    ) -> AsyncIterator[NDArray[np.uint8]]:
        """Decode the images of a request, and hold their room in the queue while they are worked on."""
        num_rows = len(rows) * max(1, draws)
        with self._batcher.admit(rows=num_rows, num_bytes=rows.num_bytes + num_rows * _row_bytes(served)):
            yield await rows.decode(
                resize=served.manifest.resize,
                max_pixels=self._settings.max_pixels_per_file,
                threads=self._file_decoders,
                at_once=self._cpus,
            )


async def _noise(seed: int, *, first_row: int, count: int, dimension: int) -> NDArray[np.float32]:
    """Return `latent_noise`, made in a thread where the event loop would stand still for long."""
    if count * dimension <= _MAX_NOISE_ON_THE_LOOP:
        return latent_noise(seed, first_row=first_row, count=count, dimension=dimension)
    return await asyncio.to_thread(latent_noise, seed, first_row=first_row, count=count, dimension=dimension)
