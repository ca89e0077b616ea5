"""Compare models as the command `compare` does: check, measure, and write the report."""

import dataclasses
import datetime
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convvae_service.bundle import BundleError, Manifest, read_trained_on
from convvae_trainer.commands.model_data import load_model_data
from convvae_trainer.compare.bundle_model import BundleModel, open_model
from convvae_trainer.compare.claims import lecture_claims
from convvae_trainer.compare.comparison import Comparison
from convvae_trainer.compare.feature_classifier import FeatureClassifier, train_feature_classifier
from convvae_trainer.compare.html import write
from convvae_trainer.compare.latent_scatter import (
    TERM_NAMES,
    LatentScatter,
    default_epochs,
    train_scatters,
)
from convvae_trainer.compare.model_report import ModelReport, measure
from convvae_trainer.compare.nearest import NearestImages
from convvae_trainer.compare.pictures import pictures
from convvae_trainer.compare.precisions import PrecisionFigures, measure_precisions
from convvae_trainer.compare.published import PublishedVersion, check_same_shape, find_versions
from convvae_trainer.compare.sample import TestSample, check_image_shape, draw_sample
from convvae_trainer.compare.system import grouped, make_systems
from convvae_trainer.compute.device import enough_memory
from convvae_trainer.compute.process import configure_process
from convvae_trainer.data.dataset import Dataset, without_seen
from convvae_trainer.data.sources import DIGITS
from convvae_trainer.data.trained_on import Fingerprints
from convvae_trainer.errors import BadConfig
from convvae_trainer.runs.folder import write_obstacle
from convvae_trainer.runs.provenance import library_versions

__all__ = ["CompareOptions", "load_data", "run_compare"]

_Say = Callable[[str], object]
# The 2-D models are trained with as many seeds as the largest system has, at most with these.
MAX_SCATTER_SEEDS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareOptions:
    """The options of `convvae-train compare`; its help describes them.

    `test_dataset` has the test images, where they are not those of `dataset`.
    """

    models: Sequence[str]
    dataset: str
    out: Path
    test_dataset: str | None = None
    data_root: str | None = None
    download: bool = False
    image_size: tuple[int, int] | None = None
    max_pixels: int | None = None
    on_error: str | None = None
    images: int = 10_000
    columns: int = 8
    seed: int = 0
    scatter: bool = True
    scatter_epochs: int | None = None
    frechet: bool = True


def run_compare(options: CompareOptions, *, command: str = "", say: _Say = str) -> Comparison:
    """Compare models, and write the report, its pictures and its numbers. All checks come first.

    Args:
        options: The options of the command.
        command: The command line, which the report states.
        say: Called with a line before each step.

    Raises:
        BadConfig: A model does not exist, or the report cannot be written.
        BundleError: A model is damaged, or its images have another shape than those of the first model.
        BadData: The data cannot be read, have another shape than the models' images, or have no test image
            that no model was trained on.
    """
    configure_process()
    _check_out(options.out)
    versions = find_versions(options.models)
    check_same_shape(versions)
    trained_on = _fingerprints(options, versions)
    dataset = load_data(options, versions[0].manifest)
    check_image_shape(dataset, versions[0].manifest.image, label=versions[0].label)
    dataset, left_out = without_seen(dataset, trained_on)
    bundles = [open_model(version) for version in versions]
    sample = draw_sample(dataset, limit=options.images, columns=options.columns, seed=options.seed)
    with enough_memory():
        classifier, no_classifier = _classifier(options, dataset, sample, say)
        systems = make_systems(_measured(options, bundles, dataset, sample, classifier, say))
        precisions = _precisions(versions, sample, say)
        num_seeds = min(MAX_SCATTER_SEEDS, max(len(system.members) for system in systems))
        likelihood = versions[0].manifest.likelihood.name
        scatters = _scatters(options, dataset, likelihood, num_seeds, say)
    comparison = Comparison(
        dataset=dataset.name,
        split=dataset.split,
        left_out=left_out,
        class_names=dataset.class_names,
        image=dataset.image,
        sample=sample,
        seed=options.seed,
        classifier=classifier,
        no_classifier=no_classifier,
        systems=systems,
        precisions=precisions,
        scatters=scatters,
        scatter_epochs=options.scatter_epochs or default_epochs(len(dataset.train)),
        claims=lecture_claims(systems, scatters),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=command,
        libraries=library_versions(),
    )
    write(comparison, pictures(comparison), json.dumps(comparison.to_json_object(), indent=2), options.out)
    return comparison


def _fingerprints(
    options: CompareOptions, versions: Sequence[PublishedVersion]
) -> dict[str, Fingerprints | None]:
    """Return the fingerprints of each version's training images, by its label; None where they say nothing.

    Images that are resized for this comparison have other pixels than in the training of a model that was
    trained with another resizing.
    """
    is_resized = options.image_size is not None or options.dataset.lower() == DIGITS
    found: dict[str, Fingerprints | None] = {}
    for version in versions:
        try:
            found[version.label] = read_trained_on(version.folder, version.manifest)
        except BundleError as error:
            raise BundleError(f"{version.folder}: {error}") from None
        if is_resized and not _is_resized_alike(version, versions[0]):
            found[version.label] = None
    return found


def _is_resized_alike(version: PublishedVersion, first: PublishedVersion) -> bool:
    resize, other = version.manifest.resize, first.manifest.resize
    return dataclasses.replace(resize, library=other.library) == other


def _check_out(out: Path) -> None:
    if out.suffix.lower() not in (".html", ".htm"):
        raise BadConfig(f"--out is {out}: give a name that ends in .html")
    reason = write_obstacle(out.absolute().parent)
    if out.is_dir():
        reason = "it is a folder"
    elif out.exists() and not os.access(out, os.W_OK):
        reason = "it is read-only"
    if reason:
        raise BadConfig(f"--out: {out} cannot be written: {reason}")


def load_data(options: CompareOptions, manifest: Manifest) -> Dataset:
    """Load the data set; images are resized, and take the channels, as the model's manifest states."""
    flags = {
        "dataset": options.dataset,
        "test_dataset": options.test_dataset,
        "data_root": options.data_root,
        "image_size": options.image_size,
        "max_pixels": options.max_pixels,
        "on_error": options.on_error,
    }
    return load_model_data(manifest, flags, download=options.download)


def _classifier(
    options: CompareOptions, dataset: Dataset, sample: TestSample, say: _Say
) -> tuple[FeatureClassifier | None, str]:
    """Return the classifier for Fréchet distances, or None and why there is none."""
    if not options.frechet:
        return None, "left out by --no-frechet"
    if dataset.train_labels is not None:
        say("training a classifier for Fréchet distances")
    classifier = train_feature_classifier(dataset, sample)
    return (None, classifier) if isinstance(classifier, str) else (classifier, "")


def _measured(
    options: CompareOptions,
    bundles: Sequence[BundleModel],
    dataset: Dataset,
    sample: TestSample,
    classifier: FeatureClassifier | None,
    say: _Say,
) -> list[ModelReport]:
    """Measure the models; the first one of each system is shown in pictures."""
    nearest = NearestImages(dataset.train, dataset.test)
    shown = {rows[0] for rows in grouped([bundle.manifest for bundle in bundles])}
    models = []
    for row, bundle in enumerate(bundles):
        say(f"measuring {bundle.published.label}")
        models.append(
            measure(
                bundle,
                sample,
                classifier=classifier,
                nearest=nearest,
                seed=options.seed,
                is_shown=row in shown,
            )
        )
    return models


def _precisions(
    versions: Sequence[PublishedVersion], sample: TestSample, say: _Say
) -> list[PrecisionFigures]:
    if any(len(version.manifest.precisions) > 1 for version in versions):
        say("measuring the precisions side by side")
    return measure_precisions(versions, sample.images)


def _scatters(
    options: CompareOptions, dataset: Dataset, likelihood: str, num_seeds: int, say: _Say
) -> list[LatentScatter]:
    if not options.scatter:
        return []
    return train_scatters(
        dataset,
        likelihood=likelihood,
        epochs=options.scatter_epochs,
        seeds=range(options.seed, options.seed + num_seeds),
        announce=lambda terms: say(f"training a 2-D model for the scatter: {TERM_NAMES[terms]}"),
    )
