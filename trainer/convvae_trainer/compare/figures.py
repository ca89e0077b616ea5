"""The figures of the report: their names, what each means, and how a model has them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from convvae_trainer.compare.model_report import ModelReport
from convvae_trainer.compare.system import System

__all__ = ["FIGURES", "FigureLine", "figures_json"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureLine:
    """A line of the table. `value` returns a model's number, or None if it has none.

    `form` is the number's format; "" gives three digits. `best` picks the best number. `key` is its name in
    the JSON file. A figure that depends on the likelihood is not compared between different likelihoods.
    """

    name: str
    meaning: str
    key: str
    value: Callable[[ModelReport], float | None]
    form: str = ".2f"
    best: Callable[[Sequence[float]], float] | None = None
    depends_on_likelihood: bool = False


FIGURES = (
    FigureLine(
        name="MSE",
        key="mse",
        meaning="squared error of a pixel in 0..1",
        value=lambda model: model.quality.mse,
        form=".5f",
        best=min,
    ),
    FigureLine(name="PSNR", key="psnr_db", meaning="dB", value=lambda model: model.quality.psnr_db, best=max),
    FigureLine(
        name="SSIM",
        key="ssim",
        meaning="structural similarity, 1 is equal",
        value=lambda model: model.quality.ssim,
        form=".4f",
        best=max,
    ),
    FigureLine(
        name="Sharpness",
        key="sharpness",
        meaning="variance of the Laplacian",
        value=lambda model: model.quality.sharpness,
        form=".4f",
    ),
    FigureLine(
        name="Sharpness distance",
        key="sharpness_distance",
        meaning="|ln(ratio to the inputs' sharpness)|",
        value=lambda model: model.quality.sharpness_distance,
        form=".3f",
        best=min,
    ),
    FigureLine(
        name="Sharpness distance, own size",
        key="own_size_sharpness_distance",
        meaning="where enlarged images have edges",
        value=lambda model: model.sized.own_size.sharpness_distance if model.sized.halvings else None,
        form=".3f",
        best=min,
    ),
    FigureLine(
        name="Sharpness distance, half size",
        key="half_size_sharpness_distance",
        meaning="the same where checkerboards vanish",
        value=lambda model: model.sized.half_size.sharpness_distance,
        form=".3f",
        best=min,
    ),
    FigureLine(
        name="Fréchet, reconstructions",
        key="frechet_reconstructions",
        meaning="from the test images",
        value=lambda model: model.frechet.frechet_reconstructions,
        form="",
        best=min,
    ),
    FigureLine(
        name="Fréchet, prior samples",
        key="frechet_samples",
        meaning="from the test images",
        value=lambda model: model.frechet.frechet_samples,
        form="",
        best=min,
    ),
    FigureLine(
        name="Classified correctly",
        key="accuracy",
        meaning="reconstructions assigned to their image's class",
        value=lambda model: model.frechet.accuracy,
        form=".1%",
        best=max,
    ),
    FigureLine(
        name="Distortion",
        key="distortion",
        meaning="-log p(x|z), nats per image",
        value=lambda model: model.distortion,
        best=min,
        depends_on_likelihood=True,
    ),
    FigureLine(
        name="Rate",
        key="rate",
        meaning="KL divergence from the prior, nats per image",
        value=lambda model: model.posterior.rate,
    ),
    FigureLine(
        name="ELBO",
        key="elbo",
        meaning="nats per image",
        value=lambda model: model.posterior.elbo,
        best=max,
        depends_on_likelihood=True,
    ),
    FigureLine(
        name="Bits per dim",
        key="bits_per_dim",
        meaning="of the ELBO, where the likelihood is a probability of pixels",
        value=lambda model: model.posterior.bits_per_dim,
        form=".4f",
        best=min,
        depends_on_likelihood=True,
    ),
    FigureLine(
        name="Active units",
        key="active_units",
        meaning="latent dimensions whose mean varies",
        value=lambda model: model.active_units,
        form="d",
    ),
    FigureLine(
        name="Latents",
        key="latent_dim",
        meaning="dimensions of z",
        value=lambda model: model.latent_dim,
        form="d",
    ),
    FigureLine(
        name="Posterior deviation",
        key="deviation",
        meaning="mean over images and latents",
        value=lambda model: model.posterior.deviation,
        form=".3f",
    ),
)


def figures_json(system: System) -> dict[str, dict[str, float | int | None]]:
    """Return mean, sample standard deviation and number of seeds of each figure that the system has."""
    found: dict[str, dict[str, float | int | None]] = {}
    for figure in FIGURES:
        if (spread := system.spread(figure.value)) is not None:
            found[figure.key] = {"mean": spread.mean, "deviation": spread.deviation, "seeds": spread.count}
    return found
