"""The Fréchet distance of two sets of images, in the features of a small classifier of the data at hand.

It is a distance of this one classifier: those of other data, or of another network such as Inception, do not
compare with it. B = batch, C = channels, H and W = height and width, N = all images, F = features.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convvae_trainer.data.chunking import chunk_size, chunks
from convvae_trainer.errors import BadData

__all__ = [
    "NUM_FEATURES",
    "Classifier",
    "check_accuracy",
    "check_labels",
    "default_floor",
    "frechet_distance",
    "train_classifier",
]

NUM_FEATURES = 64
CHANNELS = (16, 32, 64)
# Sides are brought to this by the first convolution's stride: large images cost no more than small ones.
LARGEST_SIDE = 32
SEED = 0
STEPS = 1000
BATCH = 128
PEAK_RATE = 3e-3
WEIGHT_DECAY = 0.01


class Classifier(nn.Module):
    """Three convolutions and two dense layers, of which the first one's output are the features.

    Args:
        shape: (height, width, channels) of the images.
        classes: The labels, in the order of the outputs.
    """

    def __init__(self, *, shape: tuple[int, int, int], classes: NDArray[np.int64]) -> None:
        super().__init__()
        height, width, channels = shape
        self.classes = classes
        stride = (_stride(height), _stride(width))
        kernel = (stride[0] + 2, stride[1] + 2)
        first, second, third = CHANNELS
        self.layers = nn.Sequential(
            nn.Conv2d(channels, first, kernel, stride, padding=1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(first, second, 3, padding=1, bias=False),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(second, third, 3, padding=1, bias=False),
            nn.BatchNorm2d(third),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * third, NUM_FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Linear(NUM_FEATURES, len(classes))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the classes' logits of uint8 images."""
        logits: Tensor = self.head(self._features(image_BCHW))
        return logits

    def _features(self, image_BCHW: Tensor) -> Tensor:
        feature_BF: Tensor = self.layers(image_BCHW.float() / 127.5 - 1)
        return feature_BF

    def features(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the features of uint8 images, of shape (N, `NUM_FEATURES`)."""
        return self._judge(self._features, images_NHWC).astype(np.float64)

    def accuracy(self, images_NHWC: NDArray[np.uint8], labels_N: NDArray[np.int64]) -> float:
        """Return the share of images whose label is the likeliest; one of an unknown class is none."""
        guessed_N = self.classes[self._judge(self, images_NHWC).argmax(1)]
        return float((guessed_N == labels_N).mean())

    @torch.no_grad()
    def _judge(
        self, function: Callable[[Tensor], Tensor], images_NHWC: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        device = self.head.weight.device
        height, width, channels = images_NHWC.shape[1:]
        judged = []
        for part in chunks(len(images_NHWC), chunk_size(height, width, channels)):
            # A copy: the array may be a file mapped into memory, which torch must not write to.
            image_BHWC = torch.from_numpy(np.array(images_NHWC[part]))
            judged.append(function(image_BHWC.to(device).permute(0, 3, 1, 2)).cpu().numpy())
        return np.concatenate(judged)


def _stride(side: int) -> int:
    """Return the power of two that brings a side to `LARGEST_SIDE` or less."""
    return 1 << max(0, math.ceil(math.log2(side / LARGEST_SIDE)))


def train_classifier(
    images_NHWC: NDArray[np.uint8],
    labels_N: NDArray[np.int64],
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> Classifier:
    """Train the classifier from its fixed seed, for a fixed number of steps: a minute or so on two cores.

    Args:
        images_NHWC: Training images.
        labels_N: Their labels, any integers.
        device: Where to compute; the same images, labels and device give the same classifier.
        progress: Is told now and then how much is done, 0 to 1.

    Returns:
        The classifier, on `device` and ready to judge.

    Raises:
        BadData: The labels are of fewer than two classes.
    """
    check_labels(labels_N)
    classes, target_N = np.unique(labels_N, return_inverse=True)
    height, width, channels = images_NHWC.shape[1:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        classifier = Classifier(shape=(height, width, channels), classes=classes).to(device)
    optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
    random = np.random.default_rng(SEED)
    order = np.empty(0, np.int64)
    for step in range(STEPS):
        if len(order) < min(BATCH, len(target_N)):
            order = random.permutation(len(target_N))
        rows, order = order[:BATCH], order[BATCH:]
        image_BCHW = torch.from_numpy(images_NHWC[rows]).to(device).permute(0, 3, 1, 2)
        target_B = torch.from_numpy(target_N[rows]).to(device)
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * min((step + 1) / (0.1 * STEPS), (STEPS - step) / (0.9 * STEPS))
        loss = nn.functional.cross_entropy(classifier(image_BCHW), target_B)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if progress is not None:
            progress((step + 1) / STEPS)
    return classifier.eval().requires_grad_(False)


def check_labels(labels_N: NDArray[np.int64] | None) -> None:
    """Raise `BadData` unless there are labels, of two classes at least."""
    if labels_N is None:
        raise BadData("the data have no labels, which the classifier learns from")
    if len(np.unique(labels_N)) < 2:
        raise BadData("the labels are all the same: a classifier needs two classes at least")


def check_accuracy(accuracy: float, labels_N: NDArray[np.int64], *, floor: float | None = None) -> None:
    """Raise `BadData` where features say too little of the images to measure distances in.

    Args:
        accuracy: Of the classifier on test images.
        labels_N: Theirs.
        floor: The lowest accuracy. None: half way from always guessing the commonest class to being right.
    """
    lowest = default_floor(labels_N) if floor is None else floor
    if accuracy < lowest:
        raise BadData(
            f"the classifier is right on {accuracy:.1%} of the test images, less than {lowest:.1%}: its"
            " features say too little of them for a Fréchet distance; --accuracy-floor sets another limit"
        )


def default_floor(labels_N: NDArray[np.int64]) -> float:
    """Return the accuracy half way from always guessing the commonest class to being right."""
    commonest = np.unique(labels_N, return_counts=True)[1].max() / len(labels_N)
    return float(1 + commonest) / 2


def frechet_distance(features_a: NDArray[np.float64], features_b: NDArray[np.float64]) -> float:
    """Return |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) of the features' means and covariances A and B.

    It is the squared distance of two Gaussians, as that of Heusel et al. 2017 is, and biased upwards by few
    images: sets that are compared are best of one size.

    Args:
        features_a: Of shape (N, F), two rows at least.
        features_b: Of shape (M, F), two rows at least.

    Raises:
        ValueError: The arrays are of other shapes, or hold values that are not finite.
    """
    for features in (features_a, features_b):
        if features.ndim != 2 or len(features) < 2 or features.shape[1] != features_a.shape[1]:
            raise ValueError(f"features of {features_a.shape} and {features_b.shape} have no distance")
        if not np.isfinite(features).all():
            raise ValueError("features hold values that are not finite")
    offset_F = features_a.mean(0, dtype=np.float64) - features_b.mean(0, dtype=np.float64)
    root_a, root_b = _root(features_a), _root(features_b)
    # With A = R R' and B = S S' the root's trace is the sum of the singular values of R' S. Unlike a root of
    # the product A B, which is not symmetric, that is real and keeps its digits where A or B is singular.
    shared = np.linalg.svd(root_a.T @ root_b, compute_uv=False).sum()
    distance = offset_F @ offset_F + np.square(root_a).sum() + np.square(root_b).sum() - 2 * shared
    return max(0.0, float(distance))


def _root(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return R with covariance = R R', of the covariance's eigenvalues and vectors."""
    covariance = np.atleast_2d(np.cov(features, rowvar=False, dtype=np.float64))
    values, vectors = np.linalg.eigh(covariance)
    root: NDArray[np.float64] = vectors * np.sqrt(values.clip(min=0))
    return root
