"""The model card: what a bundle is, its metrics, its origin and its limits, for people to read."""

from collections.abc import Mapping, Sequence
from typing import Any

from convvae_service.bundle import Manifest
from convvae_trainer.exports.card_tables import data_table, metrics_table, parity_table, segments_table
from convvae_trainer.runs.record import RunRecord

__all__ = ["ADVICE", "BEST_EPOCH", "UNFINISHED", "model_card"]

# A metric in the manifest of a run that has not ended: the share of its training that is done, 0 to 1.
UNFINISHED = "training_share_done"
# A metric in the manifest: lines of advice, if the run gave any.
ADVICE = "training_advice"
# A metric in the manifest of a run with early stopping: the epoch whose weights are published.
BEST_EPOCH = "training_best_epoch"

_LIKELIHOOD_LIMITS = {
    "bernoulli": "The Bernoulli likelihood is a probability for binary pixels only. For grey levels it is a"
    " cross-entropy, and its ELBO cannot be compared with that of other likelihoods.",
    "gaussian": "The Gaussian likelihood is a density of pixels in 0..1. Its ELBO may be above 0, and cannot"
    " be compared with that of other likelihoods.",
    "discretised-logistic": "The discretised logistic likelihood is a probability of the 256 levels of a"
    " pixel. Its ELBO cannot be compared with that of other likelihoods.",
}


def model_card(
    manifest: Manifest,
    *,
    record: RunRecord,
    evaluation: Mapping[str, Any],
    reproduce: Sequence[str],
    repeatability: str,
) -> str:
    """Return the card as Markdown.

    Args:
        manifest: The manifest of the version.
        record: The record of the run.
        evaluation: The metrics on the test images, as `Evaluation.to_json_object` returns them.
        reproduce: The commands that repeat the run.
        repeatability: A line that says how equal a repeated run is, or "".
    """
    training, commands = manifest.training, "\n    ".join(reproduce)
    kind, source, latents = "variational autoencoder", " from the posterior mean", "draws from the prior"
    if not _has_prior(manifest):
        kind, source, latents = "autoencoder", "", "standard normal vectors"
    return f"""# {manifest.model}

A convolutional {kind} (`{manifest.objective}`): {manifest.image} images (height x width x
channels, uint8), {manifest.latent_dim} latent dimensions, {manifest.likelihood.name} likelihood.
{_unfinished(manifest)}
Test images, each over its reconstruction{source}:

![Test images over their reconstructions](reconstructions.png)

{_samples(manifest)}
## Metrics

On {evaluation["images"]} test images, {_conditions(evaluation)}.

{metrics_table(evaluation)}
{_score(evaluation)}
{_advice(evaluation)}
## Data

{data_table(manifest, record)}
## Training

{segments_table(record)}
## ONNX Runtime compared with PyTorch

Largest absolute differences at batches of {", ".join(map(str, manifest.parity["fp32"].batches))} rows, on
data, all-0 and all-255 images, and {latents}.

{parity_table(manifest.parity["fp32"])}
## How to reproduce it

    {commands}

with the run folder's `config.json`, code at commit {training.commit or "(not under git)"}, seed
{training.seed}, {training.epochs:g} epochs{_best_epoch(manifest)}. Versions:
{", ".join(f"{name} {version}" for name, version in training.libraries.items())}.
{repeatability}
## Limits

- The model knows images like those it was trained on. It encodes other images without an error, but their
  latents mean little.
- {_limits(manifest)}
- Latents of different versions cannot be compared, even if the data are the same.
- The sha256 in the manifest detects damage. It does not prove who made the files.
"""


def _has_prior(manifest: Manifest) -> bool:
    return "sample" in manifest.capabilities


def _unfinished(manifest: Manifest) -> str:
    share = manifest.training.metrics.get(UNFINISHED)
    if share is None:
        return ""
    return f"\n**Unfinished**: {share:.1%} of the training is done. All metrics are of these weights.\n"


def _best_epoch(manifest: Manifest) -> str:
    epoch = manifest.training.metrics.get(BEST_EPOCH)
    return "" if epoch is None else f";\nthe weights are those after epoch {epoch}, which were the best"


def _samples(manifest: Manifest) -> str:
    if not _has_prior(manifest):
        return "It has no prior: `samples.png` shows decoded standard normal vectors.\n"
    return "Draws from the prior:\n\n![Draws from the prior](samples.png)\n"


def _limits(manifest: Manifest) -> str:
    smooth = "Reconstructions are pixel means, which are smoother than the images."
    if not _has_prior(manifest):
        return f"{smooth}\n- Its distortion cannot be compared with that of other likelihoods."
    text = f"{smooth} Samples are only as good as the prior's fit."
    return f"{text}\n- {_LIKELIHOOD_LIMITS[manifest.likelihood.name]}"


def _score(evaluation: Mapping[str, Any]) -> str:
    """Return a sentence on how the service's Score relates to the ELBO."""
    if evaluation["elbo"] is None:
        return (
            "An autoencoder has no prior and no rate: the service neither samples from it nor scores images."
        )
    text = (
        "The service's `Score` is taken at the posterior mean by default and usually higher than this ELBO.\n"
        "With `num_samples` it averages over posterior draws and, on the same images, estimates this ELBO"
    )
    if evaluation["binarize"] == "dynamic":
        text += ",\nif the images are drawn to 0 and 1 first: on grey images it is another quantity"
    return f"{text}."


def _advice(evaluation: Mapping[str, Any]) -> str:
    """Return the advice on the run; evaluations of earlier versions have none."""
    return "".join(f"\n**Advice**: {line}.\n" for line in evaluation.get("advice", ()))


def _conditions(evaluation: Mapping[str, Any]) -> str:
    text = f"one posterior draw for each (seed {evaluation['seed']})"
    if evaluation["elbo"] is None:
        text = "each encoded to one vector"
    if evaluation["binarize"] == "dynamic":
        text += f", drawn to 0 and 1 once (seed {evaluation['binarize_seed']})"
    return text
