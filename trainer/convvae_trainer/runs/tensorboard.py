"""TensorBoard's files of a run: the figures of each line of metrics, the latents' rates, and pictures.

Nothing here changes what is trained, or draws from its generator.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from convvae_trainer.data.image_grid import grid, pairs
from convvae_trainer.errors import MissingExtra
from convvae_trainer.evaluation.binarization import binarize_images
from convvae_trainer.step.train_state import TrainState

__all__ = ["NUM_PICTURES", "TensorBoardWriter", "opened_tensorboard"]

# Pictures are drawn a minute apart at the least, and later in a run a tenth of its time: a run of ten hours
# keeps some 60, not 600.
PICTURES_EVERY_S = 60.0
PICTURES_EVERY = 0.1
NUM_PICTURES = 16
COLUMNS = 8
SAMPLE_SEED = 0
# TensorBoard shows tags in groups, by what stands before the slash.
_VALIDATION = "validation_"


class TensorBoardWriter:
    """Writes TensorBoard's files; make one with `opened_tensorboard`.

    Args:
        folder: Where to; files of the same run that are there already are gone on with.
        train_state: What is trained.
        images_NHWC: uint8 images whose reconstructions are shown.
        step: The run's; what an earlier process wrote of later steps is dropped.

    Raises:
        ImportError: TensorBoard is not installed.
    """

    def __init__(
        self, folder: Path, train_state: TrainState, images_NHWC: NDArray[np.uint8], *, step: int = 0
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._make_train_state = train_state
        config = train_state.config
        images_NHWC = np.array(images_NHWC[:NUM_PICTURES])
        self._images_NHWC = binarize_images(images_NHWC) if config.binarize == "dynamic" else images_NHWC
        prior = np.random.default_rng(SAMPLE_SEED)
        self._prior_BZ = prior.standard_normal((NUM_PICTURES, config.latent_dim), dtype=np.float32)
        self._next_s = -1.0
        _wait_for_a_later_name(folder)
        # A finished step's figures are kept, those of the next one are written anew.
        self._writer: Any = SummaryWriter(str(folder), purge_step=step + 1 if step else 0)

    def log(self, values: Mapping[str, Any]) -> None:
        """Write one line of metrics, the rates of the latents, and pictures where they are due.

        Args:
            values: As `metrics.jsonl` has them: with `step` and `elapsed_s`.
        """
        step: int = values["step"]
        for name, value in values.items():
            if name != "step" and type(value) in (int, float) and math.isfinite(value):
                self._writer.add_scalar(_tag(name), value, step)
        rates = self._make_train_state.step_metrics.rate_per_dimension()
        if values.get("rate") is not None and all(map(math.isfinite, rates)):
            self._writer.add_histogram("latents/rate_per_dimension", np.array(rates), step)
        if values["elapsed_s"] >= self._next_s:
            self.show(step=step, elapsed_s=values["elapsed_s"])
        # What a killed process leaves can be read up to here.
        self._writer.flush()

    @torch.no_grad()
    def show(self, *, step: int, elapsed_s: float) -> None:
        """Draw the images over their reconstructions, and draws from the prior where there is one."""
        self._next_s = elapsed_s + max(PICTURES_EVERY_S, PICTURES_EVERY * elapsed_s)
        train_state = self._make_train_state
        image_BCHW = torch.from_numpy(self._images_NHWC).to(train_state.device).permute(0, 3, 1, 2)
        with train_state.ema.swapped_in():
            mean_BZ, _ = train_state.model.encoder(image_BCHW.contiguous().float() / 255)
            pictures = {"reconstructions": pairs(self._images_NHWC, self._decode(mean_BZ), columns=COLUMNS)}
            if train_state.objective.has_rate:
                prior_BZ = torch.from_numpy(self._prior_BZ).to(train_state.device)
                pictures["samples"] = grid(self._decode(prior_BZ), columns=COLUMNS)
        for name, picture_HWC in pictures.items():
            self._writer.add_image(f"pictures/{name}", picture_HWC, step, dataformats="HWC")
        self._writer.flush()

    def _decode(self, latent_BZ: torch.Tensor) -> NDArray[np.uint8]:
        train_state = self._make_train_state
        pixels_BCHW = train_state.likelihood.pixel_mean(train_state.model.decoder(latent_BZ))
        # Weights that have become NaN are shown in black.
        levels_BHWC = (pixels_BCHW.nan_to_num() * 255).round().byte().permute(0, 2, 3, 1)
        decoded: NDArray[np.uint8] = levels_BHWC.cpu().numpy()
        return decoded

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


@contextmanager
def opened_tensorboard(
    folder: Path, train_state: TrainState, images_NHWC: NDArray[np.uint8], *, step: int, console: Console
) -> Iterator[TensorBoardWriter | None]:
    """Open the run's board; without TensorBoard say which extra brings it, and go on with None."""
    try:
        board = TensorBoardWriter(folder, train_state, images_NHWC, step=step)
    except ImportError:
        message = f"no TensorBoard files: {MissingExtra('tensorboard', 'trainer')}"
        console.print(message, highlight=False, markup=False, soft_wrap=True)
        yield None
        return
    try:
        yield board
    finally:
        board.close()


def _wait_for_a_later_name(folder: Path) -> None:
    """Wait, a second at most, until a new file's name comes last: TensorBoard reads files in that order.

    The names begin with the second they were made in; within it, the number of the process decides.
    """
    newest = max((path.name for path in folder.glob("events.out.tfevents.*")), default="")
    now = time.time()
    if newest.startswith(f"events.out.tfevents.{int(now):010d}."):
        time.sleep(int(now) + 1 - now)


def _tag(name: str) -> str:
    if name.startswith(_VALIDATION):
        return f"validation/{name.removeprefix(_VALIDATION)}"
    return f"training/{name}"
