"""A small classifier, trained on the data set, whose features describe its images.

B = batch, C = channels, H and W = height and width, N = all images, F = features.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convvae_trainer.data.chunking import chunk_size, chunks
from convvae_trainer.errors import BadData

__all__ = [
    "NUM_FEATURES",
    "ClassifierNetwork",
    "check_accuracy",
    "check_labels",
    "default_floor",
    "train_classifier",
]

NUM_FEATURES = 64
CHANNELS = (16, 32, 64)
# The stride of the first convolution reduces sides to this: large images cost no more than small ones.
LARGEST_SIDE = 32
SEED = 0
STEPS = 1000
BATCH = 128
PEAK_LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.01


class ClassifierNetwork(nn.Module):
    """Three convolutions and two dense layers; the features are the output of the first dense layer.

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
        """Return the logits of the classes, of shape (B, classes), for uint8 images."""
        logits: Tensor = self.head(self._features(image_BCHW))
        return logits

    def _features(self, image_BCHW: Tensor) -> Tensor:
        feature_BF: Tensor = self.layers(image_BCHW.float() / 127.5 - 1)
        return feature_BF

    def features(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the features of uint8 images, of shape (N, `NUM_FEATURES`)."""
        return self._run(self._features, images_NHWC).astype(np.float64)

    def accuracy(self, images_NHWC: NDArray[np.uint8], labels_N: NDArray[np.int64]) -> float:
        """Return the share of images whose label is predicted, 0 to 1; unknown classes never are."""
        predicted_N = self.classes[self._run(self, images_NHWC).argmax(1)]
        return float((predicted_N == labels_N).mean())

    @torch.no_grad()
    def _run(
        self, function: Callable[[Tensor], Tensor], images_NHWC: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """Return the outputs of a function of uint8 images, computed in chunks."""
        device = self.head.weight.device
        height, width, channels = images_NHWC.shape[1:]
        outputs = []
        for part in chunks(len(images_NHWC), chunk_size(height, width, channels)):
            # A copy: the array may be a file mapped into memory, which torch must not write to.
            image_BHWC = torch.from_numpy(np.array(images_NHWC[part]))
            outputs.append(function(image_BHWC.to(device).permute(0, 3, 1, 2)).cpu().numpy())
        return np.concatenate(outputs)


def _stride(side: int) -> int:
    """Return the power of two that reduces a side to `LARGEST_SIDE` or less."""
    return 1 << max(0, math.ceil(math.log2(side / LARGEST_SIDE)))


def train_classifier(
    images_NHWC: NDArray[np.uint8],
    labels_N: NDArray[np.int64],
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> ClassifierNetwork:
    """Train the classifier for a fixed number of steps from a fixed seed: about a minute on two cores.

    Args:
        images_NHWC: Training images.
        labels_N: Their labels, any integers.
        device: Where to compute; equal images, labels and device give an equal classifier.
        progress: Called now and then with the share that is done, 0 to 1.

    Returns:
        The trained classifier in evaluation mode, on `device`.

    Raises:
        BadData: The labels have fewer than two classes.
    """
    check_labels(labels_N)
    classes, target_N = np.unique(labels_N, return_inverse=True)
    height, width, channels = images_NHWC.shape[1:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = ClassifierNetwork(shape=(height, width, channels), classes=classes).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
    for step, rows in enumerate(_batches(len(target_N))):
        image_BCHW = torch.from_numpy(images_NHWC[rows]).to(device).permute(0, 3, 1, 2)
        target_B = torch.from_numpy(target_N[rows]).to(device)
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step)
        loss = nn.functional.cross_entropy(network(image_BCHW), target_B)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if progress is not None:
            progress((step + 1) / STEPS)
    return network.eval().requires_grad_(False)


def _batches(count: int) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of `STEPS` batches: each pass over the data is shuffled."""
    random = np.random.default_rng(SEED)
    order = np.empty(0, np.int64)
    for _ in range(STEPS):
        if len(order) < min(BATCH, count):
            order = random.permutation(count)
        yield order[:BATCH]
        order = order[BATCH:]


def _learning_rate(step: int) -> float:
    """Return a rate that rises linearly for a tenth of the steps, and then falls linearly."""
    return PEAK_LEARNING_RATE * min((step + 1) / (0.1 * STEPS), (STEPS - step) / (0.9 * STEPS))


def check_labels(labels_N: NDArray[np.int64] | None) -> None:
    """Raise `BadData` unless there are labels of at least two classes."""
    if labels_N is None:
        raise BadData("the data have no labels, and the classifier needs them")
    if len(np.unique(labels_N)) < 2:
        raise BadData("all labels are the same: the classifier needs at least two classes")


def check_accuracy(accuracy: float, labels_N: NDArray[np.int64], *, floor: float | None = None) -> None:
    """Raise `BadData` if the features describe the images too poorly to measure distances in.

    Args:
        accuracy: The classifier's accuracy on test images, 0 to 1.
        labels_N: The labels of the test images.
        floor: The lowest accuracy allowed. None: `default_floor`.
    """
    lowest = default_floor(labels_N) if floor is None else floor
    if accuracy < lowest:
        raise BadData(
            f"the classifier is right on {accuracy:.1%} of the test images, less than {lowest:.1%}: its"
            " features describe them too poorly for a Fréchet distance; --accuracy-floor sets another limit"
        )


def default_floor(labels_N: NDArray[np.int64]) -> float:
    """Return the accuracy half way between always predicting the most common class and being right."""
    most_common = np.unique(labels_N, return_counts=True)[1].max() / len(labels_N)
    return float(1 + most_common) / 2
