"""The input of a model, as the sources of images know it."""

from dataclasses import dataclass

from convvae_service.bundle import ImageShape, Resize

__all__ = ["ModelInput"]


@dataclass(frozen=True, slots=True)
class ModelInput:
    """The input of a model: its name, image shape, and resizing rule for images of other sizes."""

    model: str
    shape: ImageShape
    resize: Resize
