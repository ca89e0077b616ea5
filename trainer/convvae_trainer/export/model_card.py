"""The model card: what a bundle is, its figures, where it comes from and what it is not good for."""

from collections.abc import Mapping, Sequence
from typing import Any

from convvae_service.bundle import Manifest
from convvae_trainer.runs.segments import RunSegment

__all__ = ["BEST_EPOCH", "UNFINISHED", "model_card"]

# The metric that a version of a run that has not ended has: how much of its training is done.
UNFINISHED = "training_share_done"
# That of a run with early stopping: after which of its epochs the weights were those that are published.
BEST_EPOCH = "training_best_epoch"


def model_card(
    manifest: Manifest,
    *,
    data: Mapping[str, Any],
    segments: Sequence[RunSegment],
    evaluation: Mapping[str, Any],
    reproduce: str,
    repeatability: str,
) -> str:
    """Return the card as Markdown.

    Args:
        manifest: Of the version.
        data: What `run.json` says of the data.
        segments: What trained it, from its start on.
        evaluation: Figures on the test images.
        reproduce: The command that repeats the run.
        repeatability: A line on how equal the repeated run is, or "".
    """
    resize, training = manifest.resize, manifest.training
    validation = data["train_images"] - training.images
    data_rows = [
        ("Data set", training.dataset),
        ("Training images", str(training.images)),
        *([("Validation images", f"{validation}, for early stopping")] if validation else []),
        ("Test images", f"{data['test_images']}: {data['split']}"),
        ("Other sizes", f"{resize.mode}, {resize.filter} ({resize.library})"),
        ("sha256 of all pixels", data["sha256"]),
    ]
    kind, source, vectors = "variational autoencoder", " from the posterior mean", "draws from the prior"
    if not manifest.has_log_variance:
        kind, source, vectors = "autoencoder", "", "standard normal vectors"
    return f"""# {manifest.model}

A convolutional {kind} (`{manifest.objective}`): {manifest.image} images (height x width x
channels, uint8), {manifest.latent_dim} latent dimensions, {manifest.likelihood.name} likelihood.
{_cut_short(manifest)}
Test images, each over its reconstruction{source}:

![Test images over their reconstructions](reconstructions.png)

{_samples(manifest)}
## Figures

On {evaluation["images"]} test images, {_conditions(evaluation)}.

{_table(("Figure", "Value"), _figures(evaluation))}
{_score(evaluation)}

## Data

{_table(("What", "Value"), data_rows)}
## Training

{_table(("From step", "Device", "Hardware", "Precision", "CPU threads", "Date"), _legs(segments))}
## ONNX Runtime against PyTorch

Largest absolute differences at batches {", ".join(map(str, manifest.parity["fp32"].batches))}, on data, all-0
and all-255 images, and {vectors}.

{_table(("Output", "Difference"), _parity(manifest))}
## How to make it again

    {reproduce}

with the run folder's `config.json`, code at commit {training.commit or "(not under git)"}, seed
{training.seed}, {training.epochs:g} epochs{_best(manifest)}. Versions:
{", ".join(f"{name} {version}" for name, version in training.libraries.items())}.
{repeatability}
## Limits

- It knows images like those that it was trained on. Others are encoded without complaint, and mean little.
- {_limits(manifest)}
- Latents of two versions are not comparable, even of the same data.
- The sha256 in the manifest detects damage. It does not prove who made the files.
"""


def _cut_short(manifest: Manifest) -> str:
    share = manifest.training.metrics.get(UNFINISHED)
    if share is None:
        return ""
    return f"\n**Unfinished**: its training was cut short at {share:.1%}; all figures are of these weights.\n"


def _best(manifest: Manifest) -> str:
    epoch = manifest.training.metrics.get(BEST_EPOCH)
    return "" if epoch is None else f",\nof which the weights after epoch {epoch} were the best and are these"


def _legs(segments: Sequence[RunSegment]) -> list[tuple[str, ...]]:
    return [
        (
            str(segment.step),
            _processes(segment),
            segment.hardware,
            segment.precision,
            str(segment.threads),
            segment.date,
        )
        for segment in segments
    ]


def _processes(segment: RunSegment) -> str:
    return segment.device if segment.processes == 1 else f"{segment.device}, {segment.processes} processes"


_LIKELIHOOD_LIMITS = {
    "bernoulli": "The Bernoulli likelihood is a probability for binary pixels only; for grey levels it is a"
    " cross-entropy, and its ELBO does not compare with that of other likelihoods.",
    "gaussian": "The Gaussian likelihood is a density of pixels in 0..1: its ELBO may be above 0, and does"
    " not compare with that of other likelihoods.",
    "discretised-logistic": "The discretised logistic likelihood is a probability of the 256 levels of a"
    " pixel: its ELBO does not compare with that of other likelihoods.",
}


def _samples(manifest: Manifest) -> str:
    if not manifest.has_log_variance:
        return "It has no prior: what `samples.png` shows are decoded standard normal vectors.\n"
    return "Draws from the prior:\n\n![Draws from the prior](samples.png)\n"


def _limits(manifest: Manifest) -> str:
    rebuilt = "Reconstructions are pixel means: smoother than the images."
    if not manifest.has_log_variance:
        return f"{rebuilt}\n- Its distortion does not compare with that of other likelihoods."
    text = f"{rebuilt} Samples are no better than the prior's fit."
    return f"{text}\n- {_LIKELIHOOD_LIMITS[manifest.likelihood.name]}"


def _score(evaluation: Mapping[str, Any]) -> str:
    """Say what the service's Score has to do with the ELBO above."""
    if evaluation["elbo"] is None:
        return "An autoencoder has neither prior nor rate: the service neither samples from it nor scores."
    text = (
        "The service's `Score` is taken at the posterior mean by default and usually higher than this ELBO.\n"
        "With `num_samples` it averages over posterior draws and, over the same images, estimates this ELBO"
    )
    if evaluation["binarize"] == "dynamic":
        text += ",\nif the images are drawn to 0 and 1 first: of grey images it is another figure"
    return text + "."


def _conditions(evaluation: Mapping[str, Any]) -> str:
    text = f"one posterior draw for each (seed {evaluation['seed']})"
    if evaluation["elbo"] is None:
        text = "each encoded to one vector"
    if evaluation["binarize"] == "dynamic":
        text += f", drawn to 0 and 1 once (seed {evaluation['binarize_seed']})"
    return text


def _figures(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        (name, form.format(evaluation[key]))
        for name, key, form in _ROWS
        # Some an autoencoder has not, others not a run that an earlier version of the trainer made.
        if evaluation.get(key) is not None
    ]
    rows.append(("Active units", f"{evaluation['active_units']} of {evaluation['latent_dim']}"))
    if found := evaluation.get("log_likelihood"):
        of = f"{found['samples']} importance samples, the first {found['images']} test images"
        rows.append(("log p(x)", f"{found['nats']:.2f} nats per image ({of})"))
    if found := evaluation.get("embedding"):
        of = f"fitted on {found['train_images']} training images, tested on {found['test_images']}"
        for key, name in _WORTH.items():
            values = (f"{found[key]['knn']:.1%}", f"{found[key]['linear_probe']:.1%}")
            ways = f"{values[0]} by {found['neighbours']} neighbours, {values[1]} by a linear probe"
            rows.append((f"Class from {name}", f"{ways} ({of})"))
    if found := evaluation.get("frechet"):
        of = f"{found['images']} images each; the classifier's accuracy is {found['classifier_accuracy']:.1%}"
        for key, name in _DISTANCES.items():
            if found[key] is not None:
                rows.append((f"Fréchet distance of {name}", f"{found[key]:.2f} ({of})"))
    return rows


_ROWS = (
    ("ELBO", "elbo", "{:.2f} nats per image"),
    ("Distortion", "distortion", "{:.2f} nats per image"),
    ("Rate", "rate", "{:.2f} nats per image"),
    ("Bits per dimension", "bits_per_dim", "{:.4f}"),
    ("Sigma of a pixel in 0..1", "sigma", "{:.4f}"),
    ("MSE of reconstructions", "mse", "{:.5f}, of pixels in 0..1"),
    ("PSNR of reconstructions", "psnr_db", "{:.2f} dB"),
    ("SSIM of reconstructions", "ssim", "{:.4f}"),
    ("Sharpness of reconstructions", "sharpness", "{:.4f}"),
    ("Sharpness of draws from the prior", "sample_sharpness", "{:.4f}"),
    ("Sharpness of the test images", "input_sharpness", "{:.4f}"),
)
_WORTH = {"posterior_means": "posterior means", "pca": "principal components", "pixels": "pixels"}
_DISTANCES = {
    "reconstructions": "reconstructions",
    "samples": "draws from the prior",
    "training_images": "training images, for comparison",
}


def _parity(manifest: Manifest) -> list[tuple[str, str]]:
    parity = manifest.parity["fp32"]
    rows = [("mean", f"{parity.mean:.1e}")]
    if parity.log_variance is not None:
        rows.append(("log_variance", f"{parity.log_variance:.1e}"))
    return [
        *rows,
        ("image", f"{parity.image_steps} steps of 255"),
        ("pixel_mean", f"{parity.pixel_mean:.1e}"),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
