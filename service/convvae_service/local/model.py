"""A model in this process, with the methods and results of the client.

Dimensions: N = rows of a call, H, W, C = height, width and channels of an image, Z = latent dimension.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convvae import (
    ClientClosed,
    Decoded,
    Encoded,
    ForkedDuringUse,
    Likelihood,
    Limits,
    ModelInfo,
    NotPossible,
    Reconstructed,
    Sampled,
    Scored,
    ServerFault,
)
from convvae.inputs.arguments import (
    check_count,
    check_first_row,
    check_latents,
    check_num_samples,
    check_seed,
    check_temperature,
    check_width,
    refuse,
)
from convvae.inputs.given_images import ImagesLike, check_images
from convvae_service.api.noise import MAX_TEMPERATURE, draw_seed, latent_noise
from convvae_service.bundle import rate
from convvae_service.engine.stages import Engine, Rows, Stage
from convvae_service.local.images import ImageReader
from convvae_service.repository.loaded_version import LoadedVersion

__all__ = ["LocalModel"]

# Rows of one run. They bound the memory of feature maps: 256 rows of 64x64x3, 16 of 256x256x3.
_MAX_ROWS = 256
_MAX_VALUES = 256 * 64 * 64 * 3


class LocalModel:
    """A version of a model in this process. `open_model` makes one. Several threads may share it.

        with open_model("models/mnist") as vae:
            z = vae.encode(images).mean

    The methods take and return what those of `convvae.Client` take and return, with the same noise for a
    seed and the same errors. There is one version and no network, so there is no `model` and no `timeout_s`.
    Arrays of any length are computed in parts. A process that was forked opens a model of its own.
    """

    def __init__(self, version: LoadedVersion, *, max_pixels: int) -> None:
        """Use a version that is in memory, and close it at the end.

        Args:
            version: The version.
            max_pixels: Maximum pixels of an image file, checked before it is decoded.
        """
        self._version = version
        self._info = _model_info(version, max_pixels=max_pixels)
        self._reader = ImageReader(manifest=version.manifest, info=self._info, max_pixels=max_pixels)
        self._part_rows = max(1, min(_MAX_ROWS, _MAX_VALUES // version.manifest.image.num_values))
        self._lock = threading.Lock()
        self._is_closed = False
        self._process = os.getpid()

    def encode(self, images: ImagesLike, include_log_variance: bool = False) -> Encoded:
        """Map images to the parameters of their posterior.

        Args:
            images: uint8 array (N, H, W, C) of the model's size, or (N, H, W) for a grey model. Or one image
                or a list of images: JPEG, PNG or WebP files of any size as paths or bytes, pictures of
                Pillow, or uint8 arrays of the model's size. A folder stands for its image files, sorted.
            include_log_variance: Whether to return `log_variance` as well.

        Raises:
            InvalidInput: Images cannot be used; `violations` has each of them.
            NotPossible: The model cannot encode.
        """
        given = check_images(images)
        with self._engine_for("encode") as engine:
            mean, *rest = self._run(engine.encode, self._reader.read(given))
        return Encoded(
            mean=mean, log_variance=rest[0] if rest and include_log_variance else None, **self._served()
        )

    def decode(self, latents: ArrayLike) -> Decoded:
        """Map latent vectors, finite numbers of shape (N, Z), to images."""
        latents_NZ = check_latents(latents)
        check_width(latents_NZ, self._info)
        with self._engine_for("decode") as engine:
            (images,) = self._run(engine.decode, latents_NZ)
        return Decoded(images=images, **self._served())

    def sample(
        self, count: int, seed: int | None = None, temperature: float = 1.0, first_row: int = 0
    ) -> Sampled:
        """Draw images from the prior.

        Args:
            count: Number of images, at least 1.
            seed: 0 to 2^64 - 1. None draws a new seed, which the result contains. Row i of a seed is the same
                latent vector in every call, here and on every server.
            temperature: Standard deviation of the noise, 0 to 10^6.
            first_row: Index of the first row. Rows 100 to 199 are `sample(100, first_row=100)`.
        """
        count, seed = check_count(count), check_seed(seed)
        temperature, first_row = check_temperature(temperature), check_first_row(first_row, count)
        if temperature > MAX_TEMPERATURE:
            raise refuse("temperature", f"is {temperature:g}; it must be from 0 to {MAX_TEMPERATURE:g}")
        seed = draw_seed() if seed is None else seed
        with self._engine_for("sample") as engine:
            noise_NZ = latent_noise(seed, first_row=first_row, count=count, dimension=self._info.latent_dim)
            latents_NZ = noise_NZ * np.float32(temperature)
            (images,) = self._run(engine.decode, latents_NZ)
        return Sampled(images=images, latents=latents_NZ, seed=seed, **self._served())

    def reconstruct(self, images: ImagesLike) -> Reconstructed:
        """Encode images and decode their posterior means. `images` is as in `encode`."""
        given = check_images(images)
        with self._engine_for("reconstruct") as engine:
            mean, *_ = self._run(engine.encode, self._reader.read(given))
            (decoded,) = self._run(engine.decode, mean)
        return Reconstructed(images=decoded, **self._served())

    def score(
        self, images: ImagesLike, num_samples: int = 0, seed: int | None = None, first_row: int = 0
    ) -> Scored:
        """Compute the evidence lower bound of images, in nats per image.

        Args:
            images: As in `encode`.
            num_samples: Number of draws to average the distortion over. 0 uses the posterior mean.
            seed: Seed of the draws, as in `sample`. It is used only when `num_samples` is above 0.
            first_row: Index of the first image's draws.
        """
        given = check_images(images)
        num_samples, seed = check_num_samples(num_samples), check_seed(seed)
        first_row = check_first_row(first_row, given.rows)
        with self._engine_for("score") as engine:
            images_NHWC = self._reader.read(given)
            mean, log_variance = self._run(engine.encode, images_NHWC)
            if not num_samples:
                (distortion,) = self._run(engine.distort, mean, images_NHWC)
                seed = None
            else:
                seed = draw_seed() if seed is None else seed
                distortion = self._mean_distortion(
                    engine, images_NHWC, mean, log_variance, draws=num_samples, seed=seed, first_row=first_row
                )
        rates = rate(mean, log_variance)
        return Scored(
            elbo=-(distortion + rates), distortion=distortion, rate=rates, seed=seed, **self._served()
        )

    def model(self) -> ModelInfo:
        """Return the description of the model."""
        return self._info

    def close(self) -> None:
        """Release the graphs, after the calls that still run. It may be called again."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._version.retire(lambda version: version.engine.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        info = self._info
        shape = "x".join(map(str, info.image_shape))
        return (
            f"<LocalModel {info.model}@{info.version} ({info.precision}): {info.objective}, images {shape},"
            f" {info.latent_dim} latent dimensions>"
        )

    @contextmanager
    def _engine_for(self, capability: str) -> Iterator[Engine]:
        """Hold the engine for a call.

        Raises:
            ClientClosed: The model was closed.
            ForkedDuringUse: It was opened before this process was forked.
            NotPossible: The model lacks the capability.
            ServerFault: ONNX Runtime failed.
        """
        info = self._info
        if capability not in info.capabilities:
            raise NotPossible(
                f"model {info.model!r} ({info.objective}) cannot {capability}:"
                f" it can {', '.join(info.capabilities)}"
            )
        # The threads of ONNX Runtime are not there after a fork: a run would wait for them for ever.
        if os.getpid() != self._process:
            raise ForkedDuringUse(
                f"model {info.model!r} was opened before this process was forked: open it here"
            )
        with self._lock:
            if self._is_closed:
                raise ClientClosed(f"model {info.model!r} was closed")
            self._version.acquire()
        try:
            yield self._version.engine
        finally:
            self._version.release()

    def _run(self, stage: Stage, *rows: NDArray[Any]) -> Rows:
        """Return the results of a stage for rows of any number, computed in parts."""
        count, size = len(rows[0]), self._part_rows
        parts = [
            _run_stage(stage, tuple(each[start : start + size] for each in rows))
            for start in range(0, count, size)
        ]
        return parts[0] if len(parts) == 1 else tuple(map(np.concatenate, zip(*parts, strict=True)))

    def _mean_distortion(
        self,
        engine: Engine,
        images_NHWC: NDArray[np.uint8],
        mean: NDArray[np.float32],
        log_variance: NDArray[np.float32],
        *,
        draws: int,
        seed: int,
        first_row: int,
    ) -> NDArray[np.float32]:
        """Return the distortion of each image, float32 (N,), averaged over draws from its posterior."""
        sigma = np.exp(0.5 * log_variance)
        total = len(images_NHWC) * draws
        distortion = np.empty(total, np.float32)
        for start in range(0, total, self._part_rows):
            # The draws of an image are neighbours.
            image_B = np.arange(start, min(start + self._part_rows, total)) // draws
            noise = latent_noise(
                seed,
                first_row=first_row * draws + start,
                count=len(image_B),
                dimension=self._info.latent_dim,
            )
            # z = mean + sigma * noise (Kingma and Welling 2013, section 2.4).
            latents = mean[image_B] + sigma[image_B] * noise
            (distortion[start : start + len(image_B)],) = _run_stage(
                engine.distort, (latents, images_NHWC[image_B])
            )
        means: NDArray[np.float32] = distortion.reshape(-1, draws).mean(axis=1, dtype=np.float64)
        return means.astype(np.float32)

    def _served(self) -> dict[str, Any]:
        return {"model": self._info.model, "version": self._info.version, "precision": self._info.precision}


def _run_stage(stage: Stage, rows: Rows) -> Rows:
    try:
        return stage.run(rows)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions share no base class
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise ServerFault(f"ONNX Runtime failed to {stage.name}: {reason}") from None


def _model_info(version: LoadedVersion, *, max_pixels: int) -> ModelInfo:
    manifest = version.manifest
    likelihood = manifest.likelihood
    return ModelInfo(
        model=version.name,
        version=version.version,
        precision=version.engine.precision,
        objective=manifest.objective,
        likelihood=Likelihood(
            name=likelihood.name,
            probability_clamp=likelihood.probability_clamp,
            sigma=likelihood.sigma,
            scale=likelihood.scale,
        ),
        height=manifest.image.height,
        width=manifest.image.width,
        channels=manifest.image.channels,
        latent_dim=manifest.latent_dim,
        capabilities=manifest.capabilities,
        precisions=manifest.precisions,
        limits=Limits(max_pixels_per_file=max_pixels),
        manifest_json=version.manifest_json,
    )
