"""The results of the commands on the screen, as lines."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from convvae_trainer.console import say

if TYPE_CHECKING:
    from convvae_trainer.evaluation.metrics import Evaluation
    from convvae_trainer.export.publish import Exported

__all__ = ["print_evaluation", "print_exported", "quoted"]


def quoted(path: Path) -> str:
    """Return the path as a shell reads it."""
    return shlex.quote(str(path))


def print_evaluation(console: Console, evaluation: "Evaluation") -> None:
    """Print the figures on test images."""
    say(console, f"evaluated     {evaluation.dataset}: {evaluation.split}")
    if evaluation.elbo is not None:
        say(console, f"test ELBO     {evaluation.elbo:.2f} nats per image ({evaluation.images} images)")
    say(console, f"distortion    {evaluation.distortion:.2f} nats per image")
    if evaluation.rate is not None:
        say(console, f"rate          {evaluation.rate:.2f} nats per image")
    if evaluation.bits_per_dim is not None:
        say(console, f"bits per dim  {evaluation.bits_per_dim:.4f}")
    say(console, f"active units  {evaluation.active_units} of {evaluation.latent_dim}")
    if evaluation.sigma is not None:
        say(console, f"sigma         {evaluation.sigma:.4f} of a pixel in 0..1")
    _print_quality(console, evaluation)
    if (found := evaluation.log_likelihood) is not None:
        error = "" if found.standard_error is None else f" ± {found.standard_error:.2f}"
        say(console, f"log p(x)      {found.nats:.2f}{error} nats per image")
        say(console, f"              ({found.samples} samples each, the first {found.images} test images)")
    if (vectors := evaluation.embedding) is not None:
        say(console, f"embedding     {vectors.neighbours} neighbours, linear probe: accuracy on test images")
        for name, worth in (
            ("means", vectors.posterior_means),
            (f"PCA {vectors.pca_dimension}", vectors.pca),
            ("pixels", vectors.pixels),
        ):
            say(console, f"  {name:<12}{worth.knn:.1%}, {worth.linear_probe:.1%}")
        fitted = f"fitted on {vectors.train_images} training images, tested on {vectors.test_images}"
        say(console, f"              ({fitted}; the commonest class {vectors.chance:.1%})")
    if (distances := evaluation.frechet) is not None:
        say(console, f"Fréchet       {distances.reconstructions:.2f} of reconstructions")
        if distances.samples is not None:
            say(console, f"              {distances.samples:.2f} of draws from the prior")
        say(console, f"              {distances.training_images:.2f} of training images")
        say(
            console,
            f"              (each of {distances.images} images, in {distances.features} features of a"
            f" classifier with {distances.classifier_accuracy:.1%} test accuracy)",
        )


def _print_quality(console: Console, evaluation: "Evaluation") -> None:
    say(
        console,
        f"reconstructed MSE {evaluation.mse:.5f}, PSNR {evaluation.psnr_db:.2f} dB,"
        f" SSIM {evaluation.ssim:.4f}",
    )
    parts = [f"{evaluation.sharpness:.4f} of inputs' {evaluation.input_sharpness:.4f}"]
    if evaluation.sharpness_distance is not None:
        parts.append(f"distance {evaluation.sharpness_distance:.2f}")
    if evaluation.sample_sharpness is not None:
        parts.append(f"draws {evaluation.sample_sharpness:.4f}")
    if evaluation.sample_sharpness_distance is not None:
        parts.append(f"distance {evaluation.sample_sharpness_distance:.2f}")
    say(console, f"sharpness     {', '.join(parts)}")


def print_exported(console: Console, exported: "Exported", *, models: Path) -> None:
    """Print where a version lies, its parity, and what to do next."""
    parity: Any = exported.manifest.parity["fp32"]
    say(console, f"exported      {exported.folder}")
    say(
        console,
        f"parity        mean {parity.mean:.1e}, "
        + ("" if parity.log_variance is None else f"log-variance {parity.log_variance:.1e}, ")
        + f"images {parity.image_steps} of 255",
    )
    say(console, f"pictures      {exported.folder / 'reconstructions.png'}, samples.png beside it")
    say(console, f"next          convvae-serve --models {quoted(models)}")
