"""The results of the commands on the screen: one line for each figure, after a label."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from convvae_trainer.console import say
from convvae_trainer.data.trained_on import left_out_text
from convvae_trainer.streams import required_stdout

if TYPE_CHECKING:
    from convvae_trainer.commands.quantize import Quantized
    from convvae_trainer.evaluation.embedding import EmbeddingMetrics
    from convvae_trainer.evaluation.frechet import FrechetMetrics
    from convvae_trainer.evaluation.importance import LogLikelihood
    from convvae_trainer.evaluation.metrics import Evaluation
    from convvae_trainer.exports.publish import Exported
    from convvae_trainer.study.result import StudyResult

__all__ = [
    "print_evaluation",
    "print_exported",
    "print_json",
    "print_line",
    "print_quantized",
    "print_study",
    "quoted",
]

# A line of the result: label and text. A line without a label continues the one above.
Line = tuple[str, str]
# The figures of a study on the screen: name, label, format.
_STUDY_FIGURES = (("test_elbo_nats", "ELBO", ".2f"), ("test_mse", "MSE", ".5f"), ("test_ssim", "SSIM", ".4f"))


def quoted(path: Path) -> str:
    """Return the path as a shell reads it."""
    return shlex.quote(str(path))


def print_json(result: dict[str, Any]) -> None:
    """Print the result of a command to stdout, as one JSON object."""
    screen = required_stdout()
    screen.write(json.dumps(result, indent=2) + "\n")
    screen.flush()


def print_line(console: Console, label: str, text: str) -> None:
    """Print one line of a result."""
    say(console, f"{label:<14}{text}")


def print_evaluation(console: Console, evaluation: "Evaluation") -> None:
    """Print the figures of an evaluation."""
    for label, text in _evaluation_lines(evaluation):
        print_line(console, label, text)


def print_exported(console: Console, exported: "Exported", *, models: Path) -> None:
    """Print the place of a published version, its parity with PyTorch, and the next command."""
    parity: Any = exported.manifest.parity["fp32"]
    errors = [f"mean {parity.mean:.1e}"]
    if parity.log_variance is not None:
        errors.append(f"log-variance {parity.log_variance:.1e}")
    errors.append(f"images {parity.image_steps} of 255")
    print_line(console, "exported", str(exported.folder))
    print_line(console, "parity", ", ".join(errors))
    print_line(console, "pictures", f"{exported.folder / 'reconstructions.png'} and samples.png beside it")
    print_line(console, "next", f"convvae-serve --models {quoted(models)}")


def print_quantized(console: Console, found: "Quantized") -> None:
    """Print the place of a new version, the accuracy of its graphs, and the next command."""
    print_line(console, "quantised", f"{found.follows} as {found.folder}")
    print_line(console, "tested on", f"{found.dataset.name}: {found.dataset.split}")
    print_line(console, "left out", left_out_text(found.left_out))
    for one in found.converted:
        accuracy = one.accuracy
        cosines = f"{accuracy.cosine_mean:.5f} in the mean, {accuracy.cosine_p01:.5f} at the 1st percentile"
        print_line(console, one.precision, f"cosine of embeddings {cosines} ({accuracy.images} images)")
        print_line(console, "", f"reconstructions lose {accuracy.psnr_loss_db:.3f} dB")
        if accuracy.elbo_change is not None:
            print_line(console, "", f"the ELBO changes by {accuracy.elbo_change:+.3f} nats per image")
        if kept := one.kept_text:
            print_line(console, "", f"kept in fp32: {kept}")
    root, precision = quoted(found.folder.parent.parent), found.converted[0].precision
    print_line(console, "next", f"convvae-serve --models {root} --precision {precision}")


def print_study(console: Console, result: "StudyResult") -> None:
    """Print the figures of each system with their deviation over seeds, the claims, and the report."""
    for system in result.plan.systems:
        figures = result.figures(system)
        words = [
            f"{label} {figures[name].text(form)}" for name, label, form in _STUDY_FIGURES if name in figures
        ]
        count = result.seeds(system)
        say(console, f"{system}  ({count} {'seed' if count == 1 else 'seeds'})")
        say(console, f"    {', '.join(words)}")
    if result.comparison is not None:
        for claim in result.comparison.claims:
            say(console, f"{claim.verdict:<24}  {claim.text}")
        print_line(console, "report", str(result.folder.report))
    print_line(console, "next", f"tensorboard --logdir {quoted(result.folder.path)}")


def _evaluation_lines(evaluation: "Evaluation") -> Iterator[Line]:
    bound, optional = evaluation.bound, evaluation.optional
    yield "evaluated", f"{evaluation.dataset}: {evaluation.split}"
    if evaluation.left_out is None:
        yield "trained on", "cannot be told: the run keeps no fingerprints of its training images"
    elif evaluation.left_out:
        yield "left out", f"{evaluation.left_out} of these, which the run was trained on"
    if bound.elbo is not None:
        yield "test ELBO", f"{bound.elbo:.2f} nats per image ({evaluation.images} images)"
    yield "distortion", f"{bound.distortion:.2f} nats per image"
    if bound.rate is not None:
        yield "rate", f"{bound.rate:.2f} nats per image"
    if bound.bits_per_dim is not None:
        yield "bits per dim", f"{bound.bits_per_dim:.4f}"
    yield "active units", f"{bound.active_units} of {bound.latent_dim}"
    if bound.sigma is not None:
        yield "sigma", f"{bound.sigma:.4f}, for pixels from 0 to 1"
    yield from _quality_lines(evaluation)
    if optional.log_likelihood is not None:
        yield from _log_likelihood_lines(optional.log_likelihood)
    if optional.embedding is not None:
        yield from _embedding_lines(optional.embedding)
    if optional.frechet is not None:
        yield from _frechet_lines(optional.frechet)
    for advice in evaluation.advice:
        yield "advice", advice


def _quality_lines(evaluation: "Evaluation") -> Iterator[Line]:
    quality = evaluation.reconstruction
    yield "reconstructed", f"MSE {quality.mse:.5f}, PSNR {quality.psnr_db:.2f} dB, SSIM {quality.ssim:.4f}"
    yield "sharpness", f"{quality.input_sharpness:.4f} of test images"
    yield "", f"{quality.sharpness:.4f} of reconstructions{_distance(quality.sharpness_distance)}"
    if evaluation.sample_sharpness is not None:
        distance = _distance(evaluation.sample_sharpness_distance)
        yield "", f"{evaluation.sample_sharpness:.4f} of samples from the prior{distance}"


def _distance(distance: float | None) -> str:
    return "" if distance is None else f", distance {distance:.2f}"


def _log_likelihood_lines(found: "LogLikelihood") -> Iterator[Line]:
    error = "" if found.standard_error is None else f" ± {found.standard_error:.2f}"
    yield "log p(x)", f"{found.nats:.2f}{error} nats per image"
    yield "", f"({found.samples} samples for each of the first {found.images} test images)"


def _embedding_lines(embedding: "EmbeddingMetrics") -> Iterator[Line]:
    yield "embedding", f"test accuracy of {embedding.neighbours} neighbours, and of a linear probe"
    for name, accuracy in (
        ("latent means", embedding.posterior_means),
        (f"{embedding.pca_dimension} principal components", embedding.pca),
        ("pixels", embedding.pixels),
    ):
        yield "", f"{accuracy.knn:.1%}, {accuracy.linear_probe:.1%} from {name}"
    yield "", f"{embedding.chance:.1%} from the most frequent class alone"
    yield "", f"({embedding.train_images} training images, {embedding.test_images} test images)"


def _frechet_lines(distances: "FrechetMetrics") -> Iterator[Line]:
    yield "Fréchet", f"{distances.reconstructions:.2f} of reconstructions"
    if distances.samples is not None:
        yield "", f"{distances.samples:.2f} of samples from the prior"
    yield "", f"{distances.training_images:.2f} of training images"
    yield "", f"({distances.images} images each, in {distances.features} features of a classifier"
    yield "", f" with {distances.classifier_accuracy:.1%} test accuracy)"
