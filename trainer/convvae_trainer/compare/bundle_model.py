"""A published model in ONNX Runtime: encode, decode, and its likelihood's terms, as the service has them.

N = images, H and W = height and width, C = channels, Z = latent dimension.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convvae_service.bundle import (
    METRICS_FILE,
    BundleError,
    LikelihoodSpec,
    Manifest,
    Precision,
    list_versions,
    read_bundle,
    read_manifest,
)
from convvae_trainer.data.chunking import chunk_size, chunks
from convvae_trainer.errors import BadConfig, MissingExtra
from convvae_trainer.export.onnx_graph import Graph, open_graph
from convvae_trainer.networks.likelihoods import DiscretisedLogistic, make_likelihood

__all__ = ["BundleModel", "Published", "distortion", "find", "open_model", "rate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A version on disk whose manifest was read, and what a report calls it."""

    label: str
    folder: Path
    manifest: Manifest

    @property
    def version(self) -> int:
        """The version's number."""
        return int(self.folder.name)

    @property
    def precision(self) -> Precision:
        """Of the graphs that are run: float32 where the version has it."""
        return self.manifest.precisions[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleModel:
    """A version whose graphs can be run. Make one with `open_model`."""

    published: Published
    encoder: Graph
    decoder: Graph

    @property
    def manifest(self) -> Manifest:
        """What the version says of itself."""
        return self.published.manifest

    def encode(
        self, images_NHWC: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Return posterior means and log-variances, both (N, Z); of an autoencoder the codes and None."""
        outputs = self._in_batches(self.encoder, np.ascontiguousarray(images_NHWC))
        return outputs[0], outputs[1] if len(outputs) > 1 else None

    def decode(self, latent_NZ: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return uint8 images and pixel means in 0..1, both (N, H, W, C)."""
        images_NHWC, pixel_mean_NHWC = self._in_batches(
            self.decoder, np.ascontiguousarray(latent_NZ, np.float32)
        )
        return images_NHWC, pixel_mean_NHWC

    def images_of(self, latent_NZ: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the decoded images alone, (N, H, W, C)."""
        # Pixel means take four times the memory: they are dropped batch by batch.
        return np.concatenate([self.decode(latent_NZ[part])[0] for part in self._parts(len(latent_NZ))])

    def distortion(
        self, images_NHWC: NDArray[np.uint8], latent_NZ: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Return -log p(x|z) of images and their latents in nats per image, (N,)."""
        parts = []
        for part in self._parts(len(images_NHWC)):
            pixel_mean = self.decode(latent_NZ[part])[1]
            parts.append(distortion(self.manifest.likelihood, images_NHWC[part], pixel_mean))
        return np.concatenate(parts)

    def _parts(self, count: int) -> Iterator[slice]:
        # As wide as the default networks: a manifest does not say how wide its own are.
        return chunks(count, chunk_size(*self.manifest.image.as_tuple))

    def _in_batches(self, graph: Graph, rows: NDArray[Any]) -> list[NDArray[Any]]:
        parts = [graph(rows[part]) for part in self._parts(len(rows))]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def curves(self) -> list[dict[str, Any]]:
        """Return the epochs of the training's metrics that travel with the bundle; none if there are none."""
        try:
            text = (self.published.folder / METRICS_FILE).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return []
        lines = []
        for line in text.splitlines():
            try:
                values = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not isinstance(values, dict):
                break
            if values.get("kind") == "epoch" and type(values.get("epoch")) in (int, float):
                lines.append(values)
        return lines


def find(references: Sequence[str]) -> list[Published]:
    """Return the versions that ROOT/MODEL[@VERSION] names, the highest where none is named.

    Raises:
        BadConfig: A model or version does not exist, or one is given twice; the message says which there are.
        BundleError: A manifest cannot be read.
    """
    folders = [_folder(reference) for reference in references]
    for row, folder in enumerate(folders):
        if folder in folders[:row]:
            raise BadConfig(f"{references[row]} is given twice: name each version once")
    names = [folder.parent.name for folder in folders]
    versions = [f"{folder.parent.name}@{folder.name}" for folder in folders]
    found = []
    for folder, name, version in zip(folders, names, versions, strict=True):
        label = name
        if names.count(name) > 1:
            label = version if versions.count(version) == 1 else f"{folder.parent.parent.name}/{version}"
        try:
            manifest = read_manifest(folder)
        except BundleError as error:
            raise BundleError(f"{folder}: {error}") from None
        if not manifest.precisions:
            raise BundleError(f"{folder}: it has no encoder and decoder of one precision")
        found.append(Published(label=label, folder=folder, manifest=manifest))
    return found


def _folder(reference: str) -> Path:
    model, version = reference, ""
    if "@" in Path(reference).name:
        model, _, version = reference.rpartition("@")
    if not Path(model).is_dir():
        raise BadConfig(f"{model} does not exist: give ROOT/MODEL, or ROOT/MODEL@VERSION")
    path = Path(model).resolve()
    versions = list_versions(path.parent, path.name)
    if not versions:
        raise BadConfig(f"{model} is no model of a repository: it holds no published version")
    if version and (not version.isascii() or not version.isdigit() or int(version) not in versions):
        known = ", ".join(map(str, versions))
        raise BadConfig(f"{model} has no version {version}: it has {known}")
    return path / str(int(version) if version else versions[-1])


def open_model(published: Published) -> BundleModel:
    """Read and verify the version, and open its graphs on the CPU.

    Raises:
        BundleError: A file is missing or damaged, or ONNX Runtime cannot open a graph.
        MissingExtra: ONNX Runtime is not installed.
    """
    try:
        bundle = read_bundle(published.folder)
    except BundleError as error:
        raise BundleError(f"{published.folder}: {error}") from None
    encoder, decoder = (
        _open(bundle.graphs[role, published.precision], where=f"{published.folder}: {role}")
        for role in ("encoder", "decoder")
    )
    return BundleModel(published=published, encoder=encoder, decoder=decoder)


def distortion(
    constants: LikelihoodSpec, images_NHWC: NDArray[np.uint8], pixel_mean_NHWC: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return -log p(x|z) in nats per image, of shape (N,), of the likelihood that a manifest states."""
    likelihood = make_likelihood(constants.name, sigma=constants.sigma)
    clamp = constants.probability_clamp
    if clamp is not None:
        # float64: the trainer's own clamp may be narrower than the manifest's.
        pixel_mean_NHWC = pixel_mean_NHWC.astype(np.float64).clip(clamp, 1 - clamp)
    with torch.no_grad():
        if isinstance(likelihood, DiscretisedLogistic):
            assert constants.scale is not None
            likelihood.log_scale.fill_(math.log(constants.scale))
        x = torch.from_numpy(images_NHWC.astype(np.float32)) / 255
        found = likelihood.evaluated_distortion(torch.from_numpy(pixel_mean_NHWC), x)
    return np.asarray(found.double().numpy())


def rate(mean_NZ: NDArray[np.float32], log_variance_NZ: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return KL(q(z|x) || N(0, 1)) of each latent dimension, of shape (N, Z), in nats."""
    mean, log_variance = mean_NZ.astype(np.float64), log_variance_NZ.astype(np.float64)
    return np.asarray(0.5 * (np.square(mean) + np.expm1(log_variance) - log_variance))


def _open(data: bytes, *, where: str) -> Graph:
    try:
        return open_graph(data)
    except MissingExtra:
        raise
    except Exception as error:  # noqa: BLE001 - ONNX Runtime raises types of its own
        raise BundleError(f"{where} cannot be opened by ONNX Runtime: {error}") from None
