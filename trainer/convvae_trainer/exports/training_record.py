"""The manifest's record of a training: data, length, code, versions and metrics."""

import datetime
import math
from pathlib import Path
from typing import Any

from convvae_service.bundle import Training
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.evaluation.metrics import published_metrics
from convvae_trainer.exports.model_card import ADVICE, BEST_EPOCH, UNFINISHED
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.runs.progress import TrainProgress, batch_size, fraction_done
from convvae_trainer.settings.recorded import recorded_settings

__all__ = ["DATA_SHA256", "ENDS", "SETTINGS", "STEPS", "WEIGHTS_FROM", "training_record"]

# Keys of the metrics: `compare` tells by them whether two models were trained alike.
STEPS = "training_steps"
SETTINGS = "training_settings"
DATA_SHA256 = "training_data_sha256"
# The name of the run or version whose weights were the first ones; absent: they were random.
WEIGHTS_FROM = "training_weights_from"
# The ends, [epochs, minutes], that a run had one after the other; absent: it never had another one. With the
# end, the learning rate of all steps before it changes.
ENDS = "training_ends"


def training_record(
    run: RunFolder, dataset: Dataset, progress: TrainProgress, evaluation: dict[str, Any]
) -> Training:
    """Return the record of a run.

    Args:
        run: The folder of the run.
        dataset: The run's data.
        progress: The progress of the run.
        evaluation: The metrics on the test images, as `Evaluation.to_json_object` returns them.
    """
    num_images = len(dataset.train)
    steps_per_epoch = num_images // batch_size(run.config, num_images)
    metrics = {
        **published_metrics(evaluation),
        "training_seconds": round(progress.elapsed_s, 1),
        "training_precision": run.record.precision,
        "training_device": ", ".join(run.record.distinct("device")),
        STEPS: progress.step,
        SETTINGS: recorded_settings(run.config),
        DATA_SHA256: run.record.data.sha256,
    }
    if run.record.weights_from is not None:
        metrics[WEIGHTS_FROM] = str(run.record.weights_from)
    if advice := evaluation.get("advice"):
        metrics[ADVICE] = advice
    if len(ends := run.record.distinct("end")) > 1:
        metrics[ENDS] = [list(end) for end in ends]
    if not progress.is_finished:
        metrics[UNFINISHED] = _share_done(run, progress, num_images)
    if progress.best_elbo is not None:
        metrics[BEST_EPOCH] = progress.best_epoch
    return Training(
        dataset=_public_name(dataset.name),
        images=num_images,
        epochs=round(progress.step / steps_per_epoch, 4),
        seed=run.config.seed,
        commit=", ".join(filter(None, run.record.distinct("commit"))),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        libraries=run.record.libraries,
        metrics=metrics,
    )


def _share_done(run: RunFolder, progress: TrainProgress, num_images: int) -> float:
    """Return the share of the training that is done, below 1, rounded down to three digits."""
    share = min(fraction_done(run.config, progress, num_images), 0.999)
    return math.floor(1000 * share) / 1000


def _public_name(dataset: str) -> str:
    """Return a data set's name; for a path its last part, since a bundle names no folder of this machine."""
    return Path(dataset).name or dataset
