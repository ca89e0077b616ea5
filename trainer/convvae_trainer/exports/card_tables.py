"""The tables of a model card, as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from convvae_service.bundle import Accuracy, Manifest, Parity
from convvae_trainer.runs.record import RunRecord, RunSegment

__all__ = ["accuracy_table", "data_table", "metrics_table", "parity_table", "segments_table"]

# A metric's name in the card, its key in the evaluation, and its format. An autoencoder does not have all.
_METRICS = (
    ("ELBO", "elbo", "{:.2f} nats per image"),
    ("Distortion", "distortion", "{:.2f} nats per image"),
    ("Rate", "rate", "{:.2f} nats per image"),
    ("Bits per dimension", "bits_per_dim", "{:.4f}"),
    ("Sigma of a pixel in 0..1", "sigma", "{:.4f}"),
    ("MSE of reconstructions", "mse", "{:.5f}, for pixels in 0..1"),
    ("PSNR of reconstructions", "psnr_db", "{:.2f} dB"),
    ("SSIM of reconstructions", "ssim", "{:.4f}"),
    ("Sharpness of reconstructions", "sharpness", "{:.4f}"),
    ("Sharpness of draws from the prior", "sample_sharpness", "{:.4f}"),
    ("Sharpness of the test images", "input_sharpness", "{:.4f}"),
)
_VECTORS = {"posterior_means": "posterior means", "pca": "principal components", "pixels": "pixels"}
_FRECHET_SETS = {
    "reconstructions": "reconstructions",
    "samples": "draws from the prior",
    "training_images": "training images, for comparison",
}

Row = tuple[str, ...]


def metrics_table(evaluation: Mapping[str, Any]) -> str:
    """Return the metrics on the test images.

    Args:
        evaluation: An evaluation as `Evaluation.to_json_object` returns it.
    """
    rows: list[Row] = [
        (name, form.format(evaluation[key])) for name, key, form in _METRICS if evaluation[key] is not None
    ]
    rows.append(("Active units", f"{evaluation['active_units']} of {evaluation['latent_dim']}"))
    if log_likelihood := evaluation["log_likelihood"]:
        rows.append(_log_likelihood_row(log_likelihood))
    if embedding := evaluation["embedding"]:
        rows += _embedding_rows(embedding)
    if frechet := evaluation["frechet"]:
        rows += _frechet_rows(frechet)
    return _table(("Metric", "Value"), rows)


def _log_likelihood_row(log_likelihood: Mapping[str, Any]) -> Row:
    basis = (
        f"{log_likelihood['samples']} importance samples, the first {log_likelihood['images']} test images"
    )
    return "log p(x)", f"{log_likelihood['nats']:.2f} nats per image ({basis})"


def _embedding_rows(embedding: Mapping[str, Any]) -> list[Row]:
    basis = f"fitted on {embedding['train_images']} training images, tested on {embedding['test_images']}"
    rows: list[Row] = []
    for key, name in _VECTORS.items():
        accuracy = embedding[key]
        text = (
            f"{accuracy['knn']:.1%} by {embedding['neighbours']} neighbours,"
            f" {accuracy['linear_probe']:.1%} by a linear probe"
        )
        rows.append((f"Class from {name}", f"{text} ({basis})"))
    return rows


def _frechet_rows(frechet: Mapping[str, Any]) -> list[Row]:
    accuracy = f"the classifier's accuracy is {frechet['classifier_accuracy']:.1%}"
    return [
        (f"Fréchet distance of {name}", f"{frechet[key]:.2f} ({frechet['images']} images each; {accuracy})")
        for key, name in _FRECHET_SETS.items()
        if frechet[key] is not None
    ]


def data_table(manifest: Manifest, record: RunRecord) -> str:
    """Return the table of the data: names, numbers of images and their processing.

    Args:
        manifest: The manifest of the version.
        record: The record of the run.
    """
    resize, training, data = manifest.resize, manifest.training, record.data
    rows: list[Row] = [("Data set", training.dataset), ("Training images", str(training.images))]
    if data.validation_images:
        rows.append(("Validation images", f"{data.validation_images}: {data.validation_split}"))
    rows += [
        ("Test images", f"{data.test_images}: {data.split}"),
        ("Resizing", f"{resize.mode}, {resize.filter}, JPEG decoded {resize.decode} ({resize.library})"),
        ("sha256 of all pixels", data.sha256),
    ]
    if record.weights_from is not None:
        rows.append(("First weights", f"those of {record.weights_from}"))
    return _table(("Item", "Value"), rows)


def segments_table(record: RunRecord) -> str:
    """Return the table of the run's segments: where and how each was computed."""
    rows = [
        (
            str(segment.step),
            _processes(segment),
            segment.hardware,
            record.precision,
            str(record.threads),
            segment.date,
        )
        for segment in record.segments
    ]
    return _table(("From step", "Device", "Hardware", "Precision", "CPU threads", "Date"), rows)


def _processes(segment: RunSegment) -> str:
    return segment.device if segment.processes == 1 else f"{segment.device}, {segment.processes} processes"


def parity_table(parity: Parity) -> str:
    """Return the largest differences of graphs from their reference."""
    return _table(("Output", "Difference"), _parity_rows(parity))


def accuracy_table(accuracy: Accuracy, parity: Parity) -> str:
    """Return the figures of graphs in another precision than fp32, and their largest differences from it."""
    rows: list[Row] = [
        ("Test images", str(accuracy.images)),
        ("Cosine of embeddings, mean", f"{accuracy.cosine_mean:.5f}"),
        ("Cosine of embeddings, 1st percentile", f"{accuracy.cosine_p01:.5f}"),
        ("Loss of PSNR", f"{accuracy.psnr_loss_db:.3f} dB"),
    ]
    if accuracy.elbo_change is not None:
        change = f"{accuracy.elbo_change:+.3f} nats per image, at the posterior mean"
        rows.append(("Change of the ELBO", change))
    rows += [(f"Largest difference of {name}", text) for name, text in _parity_rows(parity)]
    return _table(("Figure", "Value"), rows)


def _parity_rows(parity: Parity) -> list[Row]:
    rows: list[Row] = [("mean", f"{parity.mean:.1e}")]
    if parity.log_variance is not None:
        rows.append(("log_variance", f"{parity.log_variance:.1e}"))
    return [
        *rows,
        ("image", f"{parity.image_steps} step{'' if parity.image_steps == 1 else 's'} of 255"),
        ("pixel_mean", f"{parity.pixel_mean:.1e}"),
    ]


def _table(head: Row, rows: Sequence[Row]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
