"""Floors below which a reconstruction is no longer the image, so that its sharpness says nothing.

A checkerboard, noise, or a picture of something else may be as sharp as the data. The figures behind these
limits are in docs/compare.md.
"""

from convvae_trainer.compare.spread import Spread
from convvae_trainer.compare.system import System

__all__ = ["FLOORS", "LOWEST_SSIM", "shortfall"]

# The mean of the test images has some SSIM as the reconstruction of each. The lowest SSIM allowed is this
# part of the way from there to 1.
PART_OF_THE_WAY = 1 / 3
# The lowest SSIM as a share of the VAE's.
SHARE_OF_SSIM = 0.7
# The lowest accuracy of the classifier on reconstructions, as a share of that on the VAE's reconstructions.
SHARE_OF_ACCURACY = 0.9

LOWEST_SSIM = "SSIM is at least a third of the way from that of the mean image to 1"
FLOORS = (
    f"a reconstruction counts as the image if its {LOWEST_SSIM}, and {SHARE_OF_SSIM:.0%} of the VAE's, and"
    f" the classifier, if there is one, is right {SHARE_OF_ACCURACY:.0%} as often as on the VAE's"
)


def shortfall(system: System, vae: System | None = None) -> str:
    """Return in words which floor the reconstructions of a system miss; "" if they miss none.

    Args:
        system: The system.
        vae: The VAE that it is compared with. None: the SSIM of the mean image alone counts.
    """
    ssim = system.spread(lambda model: model.quality.ssim)
    mean_image = max(0.0, system.first.mean_image_ssim)
    lowest = mean_image + (1 - mean_image) * PART_OF_THE_WAY
    if vae is not None:
        lowest = max(lowest, SHARE_OF_SSIM * _mean(vae.spread(lambda model: model.quality.ssim)))
    if _mean(ssim) < lowest:
        return (
            f"the reconstructions of {system.name} are not the images: SSIM {_mean(ssim):.2f}, below"
            f" {lowest:.2f}"
        )
    accuracy = system.spread(lambda model: model.frechet.accuracy)
    if vae is None or accuracy is None:
        return ""
    lowest = SHARE_OF_ACCURACY * _mean(vae.spread(lambda model: model.frechet.accuracy))
    if accuracy.mean < lowest:
        return (
            f"the reconstructions of {system.name} are not the images: {accuracy.mean:.0%} are classified"
            f" correctly, below {lowest:.0%}"
        )
    return ""


def _mean(figure: Spread | None) -> float:
    return 0.0 if figure is None else figure.mean
