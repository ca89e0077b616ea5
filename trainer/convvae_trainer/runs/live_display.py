"""The display of training: a live bar on a terminal, a line every ten seconds elsewhere."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from convvae_trainer.console import ProgressLine, clock, fitted

__all__ = ["LiveDisplay"]

_FIGURES = {
    "elbo": "ELBO",
    "distortion": "distortion",
    "rate": "rate",
    "feature_distortion": "feature distortion",
    "discrimination": "discrimination",
    "adversarial": "adversarial",
}


class LiveDisplay(ProgressLine):
    """Shows epoch, ELBO, distortion, rate, images per second and the time left, on one line of the screen.

    Args:
        console: Where to show it.
        total_epochs: Epochs of the run; None if time limits it.
    """

    def __init__(self, console: Console, *, total_epochs: int | None) -> None:
        super().__init__(console, "starting")
        self._of = "" if total_epochs is None else f"/{total_epochs}"

    def show_epoch(
        self,
        *,
        epoch: int,
        fraction: float,
        means: Mapping[str, Any],
        images_per_s: float,
        left_s: float,
    ) -> None:
        """Show the state of the run.

        Args:
            epoch: The current epoch, from 1.
            fraction: How much of the run is done, 0 to 1.
            means: The means of `StepMetrics`, in nats per image.
            images_per_s: Training images per second.
            left_s: Seconds to the end of the run.
        """
        words = [f"epoch {epoch}{self._of}"]
        if means["skipped_steps"]:
            words.append(f"{means['skipped_steps']} steps skipped")
        words += [
            f"{label} {means[name]:.2f}" for name, label in _FIGURES.items() if means.get(name) is not None
        ]
        if means["active_units"] is not None:
            words.append(f"{means['active_units']} active units")
        last = [f"{images_per_s:,.0f} images/s", f"{clock(left_s)} left"]
        self.show(fitted(words, last, columns=self.columns), share=fraction)
