"""The way of a published version into this process."""

import os

from convvae import InvalidInput, NotFound
from convvae_service.bundle import (
    PRECISIONS,
    BundleError,
    NoSuchVersion,
    read_bundle,
    version_folder,
)
from convvae_service.engine.cpus import available_cpus
from convvae_service.engine.device_name import is_device_name
from convvae_service.engine.stages import Engine
from convvae_service.images import DEFAULT_MAX_PIXELS
from convvae_service.local.model import LocalModel
from convvae_service.repository.loaded_version import LoadedVersion

__all__ = ["open_model"]


def open_model(
    path: str | os.PathLike[str],
    *,
    precision: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> LocalModel:
    """Open a published model in this process, without a server.

        with open_model("models/mnist") as vae:
            z = vae.encode("pictures").mean

    Args:
        path: `ROOT/MODEL` for the highest version, `ROOT/MODEL@VERSION`, or the folder of a version.
        precision: `fp32`, `fp16` or `int8`: the graphs to run. None, and `auto`, take fp32 if the version has
            it, otherwise its first.
        device: `auto`, `cpu`, `cuda` or `cuda:N`. auto takes a GPU where there is one.
        threads: CPU threads of one run, at least 1. None takes the CPUs that this process may use.
        max_pixels: Largest width x height of an image file, checked before it is decoded.

    Raises:
        NotFound: There is no such model or version.
        InvalidInput: An argument is out of range, or the version has no graphs of this precision.
        BundleError: The version is damaged.
        StartupError: ONNX Runtime is not installed, or the device cannot be used.
    """
    if precision == "auto":
        precision = None
    if precision is not None and precision not in PRECISIONS:
        raise InvalidInput(f"precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}, or None")
    if not is_device_name(device):
        raise InvalidInput(f"device is {device!r}; it must be auto, cpu, cuda or cuda:N")
    for name, value in (("threads", threads), ("max_pixels", max_pixels)):
        if value is not None and value < 1:
            raise InvalidInput(f"{name} is {value}; it must be at least 1")
    try:
        folder = version_folder(path)
    except NoSuchVersion as error:
        raise NotFound(str(error)) from None
    label = f"{folder.parent.name}@{folder.name}"
    try:
        bundle = read_bundle(folder)
        available = bundle.manifest.precisions
        if precision is not None and precision not in available:
            raise InvalidInput(f"{label} has no {precision} graphs; it has {', '.join(available)}")
        engine = Engine(
            bundle,
            precision=precision,
            device=device,
            threads=threads or available_cpus(),
        )
        # A damaged graph is found now, not in the first call.
        engine.warm(1)
    except BundleError as error:
        raise BundleError(f"{label}: {error}") from None
    version = LoadedVersion(
        name=bundle.manifest.model,
        version=bundle.version,
        manifest=bundle.manifest,
        manifest_json=bundle.manifest.to_json(),
        engine=engine,
    )
    return LocalModel(version, max_pixels=max_pixels)
