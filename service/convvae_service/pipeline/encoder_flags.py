"""The flags that choose an encoder: a bundle in this process, or a service."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from convvae.connection.security import Security
from convvae_service.engine.device_name import is_device_name
from convvae_service.pipeline.errors import BadModel, BadUse

if TYPE_CHECKING:
    from convvae_service.bundle import Precision
    from convvae_service.pipeline.encoder import ImageEncoder
    from convvae_service.pipeline.run_engine import RunEngine

__all__ = ["EncoderFlags", "check_range"]

MAX_THREADS = 1024
MAX_WORKERS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderFlags:
    """The flags that choose the encoder of a run: a bundle in this process, or a service."""

    target: str | None
    model: str | None
    bundle: Path | None
    device: str | None
    precision: str | None
    threads: int | None
    in_flight: int | None
    engine: str = "local"
    ray_address: str | None = None
    workers: int | None = None
    security: Security = Security()  # noqa: RUF009 - it is frozen

    def check(self) -> None:
        """Raise `BadUse` if a flag is out of range, or does not belong to the kind of encoder."""
        if (self.target is None) == (self.bundle is None):
            raise BadUse("give either --target HOST:PORT or --bundle ROOT/MODEL")
        if self.target is None:
            _refuse("--target", {"--model": self.model, "--in-flight": self.in_flight})
            # The variable CONVVAE_TOKEN_FILE may be set for other commands.
            _refuse("--target", self.security.tls_options)
        else:
            _refuse("--bundle", {"--device": self.device, "--precision": self.precision})
            self.security.check()
        if self.device is not None and not is_device_name(self.device):
            raise BadUse(f"--device is {self.device!r}: it must be auto, cpu, cuda or cuda:N")
        self._check_engine()
        check_range("--threads", self.threads, MAX_THREADS)
        check_range("--in-flight", self.in_flight, MAX_THREADS)

    def _check_engine(self) -> None:
        if self.engine not in ("local", "ray"):
            raise BadUse(f"--engine is {self.engine!r}: it must be local or ray")
        if self.engine == "local":
            _refuse("--engine ray", {"--ray-address": self.ray_address, "--workers": self.workers})
            return
        if self.target is not None:
            raise BadUse("--engine ray needs --bundle: its workers encode themselves and call no service")
        if self.device is not None and ":" in self.device:
            raise BadUse(f"--device is {self.device!r}, but Ray assigns the GPUs: give --device cuda")
        check_range("--workers", self.workers, MAX_WORKERS)
        if self.ray_address is not None:
            from convvae_service.pipeline.distributed.cluster import check_address

            check_address(self.ray_address)

    def like(self, metadata: Mapping[str, str]) -> "EncoderFlags":
        """Return these flags with the model, version and precision of a result where none are given.

        Args:
            metadata: The metadata of the result.
        """
        version = metadata["convvae.model_version"]
        if self.bundle is None:
            model = self.model or metadata["convvae.model"]
            return replace(self, model=model if "@" in model else f"{model}@{version}")
        name = self.bundle.name
        bundle = self.bundle if "@" in name or not name else self.bundle.with_name(f"{name}@{version}")
        return replace(self, bundle=bundle, precision=self.precision or metadata["convvae.precision"])

    def open_engine(self) -> "RunEngine":
        """Open the engine with its encoder.

        Raises:
            BadModel: The bundle or the service cannot be used.
            BadCluster: No Ray cluster answers, or it lacks a GPU.
            MissingExtra: Ray is not installed.
        """
        from convvae_service.pipeline.run_engine import LocalEngine

        if self.engine == "local":
            return LocalEngine(self.open(), threads=self.threads)
        from convvae_service.pipeline.distributed.ray_engine import RayEngine

        return RayEngine(
            self.find_bundle(),
            address=self.ray_address,
            workers=self.workers,
            threads=self.threads,
            device=self.device or "auto",
            precision=cast("Precision | None", self.precision),
        )

    def open(self) -> "ImageEncoder":
        """Open the encoder.

        Raises:
            BadModel: The bundle or the service cannot be used.
        """
        if self.target is not None:
            from convvae_service.pipeline.remote import RemoteEncoder

            return RemoteEncoder(
                self.target, self.model or "", in_flight=self.in_flight or 4, security=self.security
            )
        from convvae_service.pipeline.local import LocalEncoder

        return LocalEncoder(
            self.find_bundle(),
            device=self.device or "auto",
            precision=cast("Precision | None", self.precision),
            threads=self.threads,
        )

    def find_bundle(self) -> Path:
        """Return the folder of the version that --bundle names.

        Raises:
            BadModel: There is no such model or version.
        """
        assert self.bundle is not None
        from convvae_service.bundle import NoSuchVersion, version_folder

        try:
            return version_folder(self.bundle)
        except NoSuchVersion as error:
            raise BadModel(str(error)) from None


def _refuse(needed: str, flags: dict[str, object]) -> None:
    """Raise `BadUse` if one of these flags, which belong to the flag `needed`, is given."""
    for name, value in flags.items():
        if value is not None:
            raise BadUse(f"{name} needs {needed}")


def check_range(name: str, value: int | None, largest: int) -> None:
    """Raise `BadUse` if a value is given that is not 1 to `largest`."""
    if value is not None and not 1 <= value <= largest:
        raise BadUse(f"{name} is {value}: it must be 1 to {largest}")
