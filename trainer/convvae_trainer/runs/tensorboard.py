"""The files of a run for TensorBoard: the metrics, the rates of the latent dimensions, and pictures.

Writing them does not change the run: it draws nothing from the run's generator. If they cannot be written, a
line says so and training goes on.
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

from convvae_trainer.console import say
from convvae_trainer.data.image_grid import grid, pairs
from convvae_trainer.errors import MissingExtra
from convvae_trainer.evaluation.binarization import binarize_images
from convvae_trainer.runs.event_file import EventFile
from convvae_trainer.step.train_state import TrainState

__all__ = ["NUM_PICTURES", "TensorBoardWriter", "open_tensorboard"]

# The shortest time between two pictures: a minute, or a tenth of the training time so far if that is longer.
# A run of ten hours then has about 60 pictures, not 600.
PICTURES_EVERY_S = 60.0
PICTURES_EVERY = 0.1
NUM_PICTURES = 16
COLUMNS = 8
SAMPLE_SEED = 0
# TensorBoard groups tags by the part before the slash.
_VALIDATION = "validation_"
# The edges of the histograms' bins: 0, and ± 1e-12 to 1e20 in steps of a tenth, as TensorFlow's are.
_EDGES = 1e-12 * 1.1 ** np.arange(774)
_BIN_EDGES = np.concatenate([-_EDGES[::-1], [0.0], _EDGES]).tolist()


class TensorBoardWriter:
    """A writer of a run's files for TensorBoard. Use `open_tensorboard` to make one.

    Args:
        folder: Folder of the files. A resumed run continues those that are there.
        train_state: The networks in training.
        images_NHWC: uint8 images whose reconstructions are shown.
        step: The run's step. Figures of later steps, from before a resume, are dropped.
        console: Shows why no more is written, if that happens.

    Raises:
        ImportError: TensorBoard is not installed.
        OSError: The folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        train_state: TrainState,
        images_NHWC: NDArray[np.uint8],
        *,
        step: int,
        console: Console,
    ) -> None:
        from torch.utils.tensorboard import summary

        self._summary: Any = summary
        self._train_state = train_state
        self._console = console
        config = train_state.config
        images_NHWC = np.array(images_NHWC[:NUM_PICTURES])
        self._images_NHWC = binarize_images(images_NHWC) if config.binarize == "dynamic" else images_NHWC
        prior = np.random.default_rng(SAMPLE_SEED)
        self._prior_BZ = prior.standard_normal((NUM_PICTURES, config.latent_dim), dtype=np.float32)
        self._next_s = -1.0
        self._folder = folder
        _wait_for_a_later_name(folder)
        # The figures of the last finished step are kept; later ones are written again.
        self._file: EventFile | None = EventFile(folder, purge_step=step + 1 if step else 0)

    def log(self, values: Mapping[str, Any]) -> None:
        """Write one line of metrics, the rates of the latent dimensions, and pictures if they are due.

        Args:
            values: A line of `metrics.jsonl`, with `step` and `elapsed_s`.
        """
        with self._ending_on_failure():
            self._log(values)
        if values["elapsed_s"] >= self._next_s:
            self.show(step=values["step"], elapsed_s=values["elapsed_s"])

    def show(self, *, step: int, elapsed_s: float) -> None:
        """Write pictures: the images above their reconstructions, and samples if the model has a prior."""
        self._next_s = elapsed_s + max(PICTURES_EVERY_S, PICTURES_EVERY * elapsed_s)
        with self._ending_on_failure():
            self._show(step)

    @contextmanager
    def _ending_on_failure(self) -> Iterator[None]:
        """Write no more after an error of the block, such as a full disk or memory that ran out."""
        try:
            yield
        except (OSError, RuntimeError, ValueError, MemoryError) as error:
            self._file = None
            reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())[:200]
            say(self._console, f"no more TensorBoard files in {self._folder}: {reason}; training goes on")

    def _log(self, values: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        summaries = [
            self._summary.scalar(_tag(name), value)
            for name, value in values.items()
            if name != "step" and type(value) in (int, float) and math.isfinite(value)
        ]
        rates = self._train_state.step_metrics.rate_per_dimension()
        if values.get("rate") is not None and all(map(math.isfinite, rates)):
            tag = "latents/rate_per_dimension"
            summaries.append(self._summary.histogram(tag, np.array(rates), bins=_BIN_EDGES))
        self._file.write(summaries, step=values["step"])

    @torch.no_grad()
    def _show(self, step: int) -> None:
        if self._file is None:
            return
        train_state = self._train_state
        image_BCHW = torch.from_numpy(self._images_NHWC).to(train_state.device).permute(0, 3, 1, 2)
        with train_state.ema.swapped_in():
            mean_BZ, _ = train_state.model.encoder(image_BCHW.contiguous().float() / 255)
            pictures = {"reconstructions": pairs(self._images_NHWC, self._decode(mean_BZ), columns=COLUMNS)}
            if train_state.objective.has_rate:
                prior_BZ = torch.from_numpy(self._prior_BZ).to(train_state.device)
                pictures["samples"] = grid(self._decode(prior_BZ), columns=COLUMNS)
        summaries = [
            self._summary.image(f"pictures/{name}", picture_HWC, dataformats="HWC")
            for name, picture_HWC in pictures.items()
        ]
        self._file.write(summaries, step=step)

    def _decode(self, latent_BZ: torch.Tensor) -> NDArray[np.uint8]:
        train_state = self._train_state
        pixels_BCHW = train_state.likelihood.pixel_mean(train_state.model.decoder(latent_BZ))
        # Pixels that are NaN are shown in black.
        levels_BHWC = (pixels_BCHW.nan_to_num() * 255).round().byte().permute(0, 2, 3, 1)
        decoded: NDArray[np.uint8] = levels_BHWC.cpu().numpy()
        return decoded


def open_tensorboard(
    folder: Path, train_state: TrainState, images_NHWC: NDArray[np.uint8], *, step: int, console: Console
) -> TensorBoardWriter | None:
    """Return the writer of a run, or None if there can be none; then print why."""
    try:
        return TensorBoardWriter(folder, train_state, images_NHWC, step=step, console=console)
    except ImportError:
        reason = str(MissingExtra("tensorboard", "trainer"))
    except OSError as error:
        reason = f"{folder} cannot be written: {error.strerror}; training goes on"
    except Exception as error:  # noqa: BLE001 - whatever a damaged or unsuitable package raises
        reason = f"tensorboard cannot be loaded: {' '.join(str(error).split())[:200]}; training goes on"
    say(console, f"no TensorBoard files: {reason}")
    return None


def _wait_for_a_later_name(folder: Path) -> None:
    """Wait, at most a second, until the name of a new file sorts last, since TensorBoard reads them in order.

    A name starts with the second in which the file was made, and continues with the number of the process.
    """
    newest = max((path.name for path in folder.glob("events.out.tfevents.*")), default="")
    now = time.time()
    if newest.startswith(f"events.out.tfevents.{int(now):010d}."):
        time.sleep(int(now) + 1 - now)


def _tag(name: str) -> str:
    if name.startswith(_VALIDATION):
        return f"validation/{name.removeprefix(_VALIDATION)}"
    return f"training/{name}"
