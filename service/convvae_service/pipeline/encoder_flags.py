"""The flags that choose an encoder: a bundle in this process, or a service."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from convvae_service.engine.device_name import is_device_name
from convvae_service.pipeline.errors import BadModel, BadUse

if TYPE_CHECKING:
    from convvae_service.bundle import Precision
    from convvae_service.pipeline.encoder import ImageEncoder

__all__ = ["EncoderFlags", "check_range"]

MAX_THREADS = 1024


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

    def check(self) -> None:
        """Raise `BadUse` if a flag is out of range, or does not belong to the kind of encoder."""
        if (self.target is None) == (self.bundle is None):
            raise BadUse("give either --target HOST:PORT or --bundle ROOT/MODEL")
        if self.target is None:
            _refuse("--target", {"--model": self.model, "--in-flight": self.in_flight})
        else:
            _refuse("--bundle", {"--device": self.device, "--precision": self.precision})
        if self.device is not None and not is_device_name(self.device):
            raise BadUse(f"--device is {self.device!r}: it must be auto, cpu, cuda or cuda:N")
        check_range("--threads", self.threads, MAX_THREADS)
        check_range("--in-flight", self.in_flight, MAX_THREADS)

    def open(self) -> "ImageEncoder":
        """Open the encoder.

        Raises:
            BadModel: The bundle or the service cannot be used.
        """
        if self.target is not None:
            from convvae_service.pipeline.remote import RemoteEncoder

            return RemoteEncoder(self.target, self.model or "", in_flight=self.in_flight or 4)
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
