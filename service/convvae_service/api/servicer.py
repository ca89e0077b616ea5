"""The methods of `convvae.v1.VaeService`: check a request, run it in batches, and answer it."""

from concurrent.futures import Executor
from contextlib import AbstractContextManager
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from convvae.v1 import vae_pb2
from convvae_service.api.image_rows import ImageRows
from convvae_service.api.limits import CallLimits, call_limits
from convvae_service.api.noise import draw_seed, latent_noise
from convvae_service.api.parse import ImageRequest, read_images, read_latents, read_sample, read_score
from convvae_service.api.serialize import describe_model, list_models, pixels, served_model, vectors
from convvae_service.batching.batcher import Batcher
from convvae_service.bundle import rate
from convvae_service.calls.message_limits import message_limits
from convvae_service.calls.service import Service
from convvae_service.calls.waiting import wait
from convvae_service.engine.cpus import available_cpus
from convvae_service.engine.stages import Rows, Stage
from convvae_service.errors import CapabilityMissing
from convvae_service.images import DecodingThreads
from convvae_service.observability.call import Call
from convvae_service.repository.catalog import Repository
from convvae_service.repository.loaded_version import LoadedVersion
from convvae_service.settings.serve import ServeSettings

__all__ = ["VaeServicer"]

# A million values take about 70 ms.
_MAX_NOISE_VALUES_AT_ONCE = 16_384


class VaeServicer:
    """Answers calls from the versions of a repository. The methods note facts for the log in `call`."""

    def __init__(
        self,
        *,
        settings: ServeSettings,
        repository: Repository,
        batcher: Batcher,
        workers: Executor,
        decoding_threads: DecodingThreads,
    ) -> None:
        self._settings = settings
        self._repository = repository
        self._batcher = batcher
        # Threads for work that would take long where requests are read: much noise, and image files.
        self._workers = workers
        self._decoding_threads = decoding_threads
        # They are the same for each call, and are dropped with their version.
        self._limits: WeakKeyDictionary[LoadedVersion, CallLimits] = WeakKeyDictionary()
        # This reads files of the system: once, not for each call.
        self._cpus = available_cpus()

    @property
    def service(self) -> Service:
        """The service that a front serves."""
        return Service(
            descriptor=vae_pb2.DESCRIPTOR.services_by_name["VaeService"],
            limits=message_limits(self._settings),
            calls={
                "Encode": self.encode,
                "Decode": self.decode,
                "Sample": self.sample,
                "Reconstruct": self.reconstruct,
                "Score": self.score,
                "ListModels": self.list_models,
                "GetModel": self.get_model,
            },
        )

    async def encode(self, request: vae_pb2.EncodeRequest, call: Call) -> vae_pb2.EncodeResponse:
        """Map images to the parameters of their posterior."""
        served = self._lease(request.model, "encode", call)
        rows = self._read(request, served, call)
        include_log_variance = request.include_log_variance
        # The rows are copies, and may wait for long.
        del request
        with self._admit(rows, served, call):
            images = await self._decode(rows, served)
            mean, *log_variance = await self._run(served.engine.encode, (images,), call)
        reply = vae_pb2.EncodeResponse(model=served_model(served), mean=vectors(mean))
        if include_log_variance and log_variance:
            reply.log_variance.CopyFrom(vectors(log_variance[0]))
        return reply

    async def decode(self, request: vae_pb2.DecodeRequest, call: Call) -> vae_pb2.DecodeResponse:
        """Map latent vectors to images."""
        served = self._lease(request.model, "decode", call)
        limits = self._limits_of(served)
        latents = read_latents(request.latents, dimension=served.manifest.latent_dim, limits=limits)
        call.rows = len(latents)
        call.held.add(call.rows * limits.row_bytes)
        with self._batcher.admit(rows=call.rows):
            (images,) = await self._run(served.engine.decode, (latents,), call)
        return vae_pb2.DecodeResponse(model=served_model(served), images=pixels(images))

    async def sample(self, request: vae_pb2.SampleRequest, call: Call) -> vae_pb2.SampleResponse:
        """Draw latent vectors from the prior and decode them."""
        served = self._lease(request.model, "sample", call)
        limits = self._limits_of(served)
        count, temperature = read_sample(request, limits=limits)
        seed = request.seed if request.HasField("seed") else draw_seed()
        dimension = served.manifest.latent_dim
        call.rows = count
        call.held.add(count * limits.row_bytes)
        with self._batcher.admit(rows=count):
            noise = await self._noise(seed, request.first_row, count, dimension)
            latents = noise * np.float32(temperature)
            (images,) = await self._run(served.engine.decode, (latents,), call)
        return vae_pb2.SampleResponse(
            model=served_model(served), images=pixels(images), latents=vectors(latents), seed=seed
        )

    async def reconstruct(
        self, request: vae_pb2.ReconstructRequest, call: Call
    ) -> vae_pb2.ReconstructResponse:
        """Encode images and decode their posterior means."""
        served = self._lease(request.model, "reconstruct", call)
        rows = self._read(request, served, call)
        del request
        with self._admit(rows, served, call):
            images = await self._decode(rows, served)
            mean, *_ = await self._run(served.engine.encode, (images,), call)
            (reconstructions,) = await self._run(served.engine.decode, (mean,), call)
        return vae_pb2.ReconstructResponse(model=served_model(served), images=pixels(reconstructions))

    async def score(self, request: vae_pb2.ScoreRequest, call: Call) -> vae_pb2.ScoreResponse:
        """Compute the evidence lower bound of images, in nats."""
        served = self._lease(request.model, "score", call)
        rows = self._read(request, served, call)
        num_samples = read_score(request, rows=len(rows), limits=self._limits_of(served))
        seed = request.seed if request.HasField("seed") else draw_seed()
        first_row = request.first_row
        del request
        with self._admit(rows, served, call, copies=max(1, num_samples)):
            images = await self._decode(rows, served)
            mean, log_variance = await self._run(served.engine.encode, (images,), call)
            latents, targets = mean, images
            if num_samples:
                noise = await self._noise(
                    seed,
                    first_row * num_samples,
                    len(images) * num_samples,
                    served.manifest.latent_dim,
                )
                # z = mean + sigma * noise (Kingma and Welling 2013, section 2.4); the samples of an image are
                # neighbours.
                sigma = np.exp(0.5 * log_variance)
                latents = np.repeat(mean, num_samples, axis=0) + np.repeat(sigma, num_samples, axis=0) * noise
                targets = np.repeat(images, num_samples, axis=0)
            (distortion,) = await self._run(served.engine.distort, (latents, targets), call)
        if num_samples:
            distortion = distortion.reshape(len(images), num_samples).mean(axis=1, dtype=np.float64)
        rates = rate(mean, log_variance)
        reply = vae_pb2.ScoreResponse(
            model=served_model(served),
            elbo=(-(distortion + rates)).tolist(),
            distortion=distortion.tolist(),
            rate=rates.tolist(),
        )
        if num_samples:
            reply.seed = seed
        return reply

    async def list_models(self, request: vae_pb2.ListModelsRequest, call: Call) -> vae_pb2.ListModelsResponse:
        """List the models and their versions."""
        del request, call
        with self._repository.lock:
            return list_models(self._repository.models)

    async def get_model(self, request: vae_pb2.GetModelRequest, call: Call) -> vae_pb2.GetModelResponse:
        """Describe one version."""
        served = self._lease(request.model, None, call)
        return describe_model(served, settings=self._settings, limits=self._limits_of(served))

    def _limits_of(self, served: LoadedVersion) -> CallLimits:
        limits = self._limits.get(served)
        if limits is None:
            limits = self._limits[served] = call_limits(self._settings, served)
        return limits

    def _lease(self, model: vae_pb2.ModelRef, capability: str | None, call: Call) -> LoadedVersion:
        """Return a version that stays open until the call ends.

        Raises:
            CapabilityMissing: The model cannot do what the call needs.
            ServiceError: There is no such version here.
        """
        served = self._repository.lease(model.name, model.version)
        call.on_end.append(served.release)
        call.model, call.version = served.name, served.version
        if capability and capability not in served.manifest.capabilities:
            raise CapabilityMissing(
                f"model {served.name!r} ({served.manifest.objective}) cannot {capability}:"
                f" it can {', '.join(served.manifest.capabilities)}"
            )
        return served

    def _read(self, request: ImageRequest, served: LoadedVersion, call: Call) -> ImageRows:
        limits = self._limits_of(served)
        rows = read_images(request, shape=served.manifest.image, limits=limits)
        call.rows = len(rows)
        return rows

    def _admit(
        self, rows: ImageRows, served: LoadedVersion, call: Call, *, copies: int = 1
    ) -> AbstractContextManager[None]:
        """Count the results for `copies` of each image, and reserve their rows while a `with` block runs."""
        num_rows = len(rows) * copies
        call.held.add(num_rows * self._limits_of(served).row_bytes)
        return self._batcher.admit(rows=num_rows)

    async def _decode(self, rows: ImageRows, served: LoadedVersion) -> NDArray[np.uint8]:
        return await rows.decode(
            resize=served.manifest.resize,
            max_pixels=self._settings.max_pixels_per_file,
            threads=self._decoding_threads,
            at_once=self._cpus,
        )

    async def _run(self, stage: Stage, rows: Rows, call: Call) -> Rows:
        """Return the results of a stage for the rows of a call."""
        return await wait(self._batcher.submit(stage, rows, call.observe(), alone=call.alone))

    async def _noise(self, seed: int, first_row: int, count: int, dimension: int) -> NDArray[np.float32]:
        """Return `latent_noise`, made by a worker if there is much of it."""
        make = partial(latent_noise, seed, first_row=first_row, count=count, dimension=dimension)
        if count * dimension <= _MAX_NOISE_VALUES_AT_ONCE:
            return make()
        return await wait(self._workers.submit(make))
