"""The test images on which models are compared, and the few of them that the report shows.

N = images, H and W = height and width, C = channels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape
from convvae_trainer.compare.own_size import own_halvings
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.data.selection import drawn, varied
from convvae_trainer.errors import BadData
from convvae_trainer.evaluation.image_quality import reconstruction_quality

__all__ = ["TestSample", "check_image_shape", "draw_sample", "mean_image_ssim"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TestSample:
    """Test images of shape (N, H, W, C), their rows in the test set, and which of them the report shows.

    `mean_image_ssim` is the SSIM that the mean of these images has as the reconstruction of each. `halvings`
    is how often they are halved until they have edges of their own: 0 unless they were enlarged.
    """

    rows: NDArray[np.intp]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    shown: NDArray[np.intp]
    mean_image_ssim: float
    halvings: int


def draw_sample(dataset: Dataset, *, limit: int, columns: int, seed: int) -> TestSample:
    """Draw test images for a comparison.

    Args:
        dataset: The data set.
        limit: The largest number of test images.
        columns: The largest number of images that the report shows; they are of as many classes as possible.
        seed: The seed of the draw.
    """
    rows = drawn(len(dataset.test), limit, seed=seed)
    labels = None if dataset.test_labels is None else dataset.test_labels[rows]
    # The whole test set is not copied: it may be a file mapped into memory.
    images = dataset.test if len(rows) == len(dataset.test) else dataset.test[rows]
    return TestSample(
        rows=rows,
        images=images,
        labels=labels,
        shown=varied(len(rows), labels, columns, seed=seed),
        mean_image_ssim=mean_image_ssim(images),
        halvings=own_halvings(images),
    )


def mean_image_ssim(images_NHWC: NDArray[np.uint8]) -> float:
    """Return the SSIM of the mean image as the reconstruction of each image: what needs no encoder."""
    mean_HWC = np.rint(images_NHWC.mean(axis=0, dtype=np.float64)).astype(np.uint8)
    return reconstruction_quality(images_NHWC, np.broadcast_to(mean_HWC, images_NHWC.shape)).ssim


def check_image_shape(dataset: Dataset, image: ImageShape, *, label: str) -> None:
    """Raise `BadData` unless the data set has images of the models' shape; the message says what to change.

    Args:
        dataset: The data set.
        image: The image shape of the models.
        label: The name of a model, for the message.
    """
    if dataset.image == image:
        return
    if dataset.image.channels != image.channels:
        hint = "give data with the same number of channels"
    elif image.height == image.width:
        hint = f"--image-size {image.height} resizes them"
    else:
        hint = f"--image-size {image.height}x{image.width} resizes them"
    raise BadData(f"images of {dataset.name} are {dataset.image}, images of {label} are {image}: {hint}")
