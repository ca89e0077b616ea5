"""Quantise a published model as the command `quantize` does: convert, measure, and publish a new version."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convvae_service.bundle import ROLES, Bundle, BundleError, Precision, Role, read_bundle, read_trained_on
from convvae_trainer.commands.model_data import load_model_data
from convvae_trainer.compare.published import PublishedVersion, find_version
from convvae_trainer.compare.sample import check_image_shape
from convvae_trainer.compute.device import enough_memory
from convvae_trainer.compute.process import configure_process
from convvae_trainer.data.dataset import Dataset, without_seen
from convvae_trainer.data.selection import drawn
from convvae_trainer.data.trained_on import Fingerprints, SeenCounts
from convvae_trainer.errors import BadConfig
from convvae_trainer.exports.accuracy import Reference
from convvae_trainer.exports.calibration import calibration
from convvae_trainer.exports.conversion import Converted, to_fp16, to_int8
from convvae_trainer.exports.graph_pair import GraphPair
from convvae_trainer.exports.successor import publish_successor
from convvae_trainer.runs.folder import write_obstacle

__all__ = ["CALIBRATION_IMAGES", "QuantizeOptions", "Quantized", "run_quantize"]

# Few images lack the extremes of the activations: 128 gave embeddings of MNIST a cosine of only 0.9989.
CALIBRATION_IMAGES = 1024
TEST_IMAGES = 2000

_Say = Callable[[str], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizeOptions:
    """The options of `convvae-train quantize`; its help describes them."""

    model: str
    dataset: str
    precisions: Sequence[Precision] = ("int8",)
    data_root: str | None = None
    download: bool = False
    max_pixels: int | None = None
    on_error: str | None = None
    calibration_images: int = CALIBRATION_IMAGES
    weight_bits: int = 7
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantized:
    """A new version: its folder, the one that it follows, the data set, and the converted graphs.

    `left_out` counts the images that the model was trained on and that are no test images for that reason.
    """

    folder: Path
    follows: Path
    dataset: Dataset
    left_out: SeenCounts
    converted: Sequence[Converted]

    def to_json_object(self) -> dict[str, Any]:
        """Return the result as JSON types."""
        return {
            "folder": str(self.folder),
            "follows": str(self.follows),
            "dataset": self.dataset.name,
            "split": self.dataset.split,
            "left_out": self.left_out,
            "precisions": {one.precision: one.to_json_object() for one in self.converted},
        }


def run_quantize(options: QuantizeOptions, *, say: _Say = str) -> Quantized:
    """Publish a version with graphs in further precisions. All checks come first.

    Args:
        options: The options of the command.
        say: Called with a line before each step.

    Raises:
        BadConfig: The version does not exist, has these graphs already, or cannot be published.
        BundleError: The version is damaged.
        BadData: The data cannot be read, or have another shape than the model's images.
        ExportFailed: The graphs are not accurate enough, or cannot be written; nothing was published.
    """
    configure_process()
    version = find_version(options.model)
    _check_precisions(version, options.precisions)
    if reason := write_obstacle(version.folder.parent):
        raise BadConfig(f"{version.folder.parent} cannot be written: {reason}")
    bundle, trained_on = _read(version)
    dataset, left_out = without_seen(_load_data(options, version), {version.label: trained_on})
    with enough_memory():
        converted = _convert(options, bundle, dataset, say)
    made = publish_successor(version.folder, bundle, converted, trained_on)
    return Quantized(
        folder=made.folder,
        follows=version.folder,
        dataset=dataset,
        left_out=left_out,
        converted=converted,
    )


def _check_precisions(version: PublishedVersion, precisions: Sequence[Precision]) -> None:
    there = version.manifest.precisions
    if "fp32" not in there:
        raise BadConfig(f"{version.folder} has no fp32 graphs, which the others are made from")
    for precision in precisions:
        if precision in there:
            raise BadConfig(
                f"{version.folder} has {precision} graphs already: give a version without them,"
                " as ROOT/MODEL@VERSION"
            )


def _read(version: PublishedVersion) -> tuple[Bundle, Fingerprints | None]:
    try:
        return read_bundle(version.folder), read_trained_on(version.folder, version.manifest)
    except BundleError as error:
        raise BundleError(f"{version.folder}: {error}") from None


def _load_data(options: QuantizeOptions, version: PublishedVersion) -> Dataset:
    image = version.manifest.image
    flags = {
        "dataset": options.dataset,
        "data_root": options.data_root,
        "image_size": (image.height, image.width),
        "max_pixels": options.max_pixels,
        "on_error": options.on_error,
    }
    dataset = load_model_data(version.manifest, flags, download=options.download)
    check_image_shape(dataset, image, label=version.label)
    return dataset


def _convert(options: QuantizeOptions, bundle: Bundle, dataset: Dataset, say: _Say) -> list[Converted]:
    manifest = bundle.manifest
    graphs: dict[Role, bytes] = {role: bundle.graphs[role, "fp32"] for role in ROLES}
    pair = GraphPair(
        graphs, precision="fp32", image=manifest.image, has_log_variance=manifest.has_log_variance
    )
    test = dataset.test[drawn(len(dataset.test), TEST_IMAGES, seed=options.seed)]
    say(f"running the fp32 graphs on {len(test)} test images")
    reference = Reference.of(pair, test, likelihood=manifest.likelihood)
    converted = []
    if "int8" in options.precisions:
        train = dataset.train[drawn(len(dataset.train), options.calibration_images, seed=options.seed)]
        say(f"quantising with {len(train)} training images")
        inputs = calibration(pair, train, seed=options.seed)
        converted.append(to_int8(graphs, inputs, reference, weight_bits=options.weight_bits))
    if "fp16" in options.precisions:
        say("converting to fp16")
        converted.append(to_fp16(graphs, reference))
    return converted
