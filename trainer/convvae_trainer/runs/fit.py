"""A run from settings to figures: create or resume it, train, evaluate."""

import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from convvae_trainer.compute.device import enough_memory
from convvae_trainer.compute.distributed import SINGLE_PROCESS, DistContext
from convvae_trainer.console import say
from convvae_trainer.data.dataset import Dataset, without_seen
from convvae_trainer.data.selection import varied
from convvae_trainer.errors import BadRun, TrainingFailed
from convvae_trainer.evaluation.advice import advised
from convvae_trainer.evaluation.metrics import OPTIONAL_METRICS, Evaluation, evaluate_run
from convvae_trainer.runs.context import RunContext
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.runs.lock import RunLock
from convvae_trainer.runs.ownership import has_checkpoint, new_folder, resumed_folder
from convvae_trainer.runs.progress import TrainProgress
from convvae_trainer.runs.signals import noted_signals
from convvae_trainer.runs.start import create_run, resume_run
from convvae_trainer.runs.start_weights import StartWeights
from convvae_trainer.runs.summary import summary_lines
from convvae_trainer.runs.tensorboard import NUM_PICTURES, TensorBoardWriter, open_tensorboard
from convvae_trainer.runs.training import CHECKPOINT_EVERY_S, train
from convvae_trainer.settings.config import Config
from convvae_trainer.step.train_state import TrainState

__all__ = ["Fitted", "fit"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """A finished run with its weights in memory."""

    run: RunFolder
    train_state: TrainState
    progress: TrainProgress
    evaluation: Evaluation


def fit(
    config: Config,
    dataset: Dataset,
    run_dir: Path,
    *,
    resume: bool = False,
    extend: bool = False,
    weights: StartWeights | None = None,
    command: str = "",
    console: Console | None = None,
    dist: DistContext = SINGLE_PROCESS,
    catch_signals: bool = True,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
) -> Fitted:
    """Train with the settings of `config`, keep everything in `run_dir`, and evaluate on the test images.

    A run whose `threads` is None computes on as many CPU threads as torch has. See `compute.process` for the
    runs before which the process must be configured.

    Args:
        config: The run's settings.
        dataset: The data set that `config` names, loaded.
        run_dir: A new or empty folder, or with `resume` the folder of the run to continue.
        resume: Continue from the run's checkpoint, or from its start if it has none yet.
        extend: With `resume`, train to the epochs or minutes of `config`, which may differ from the run's.
        weights: Weights that a new run starts from. None: random ones.
        command: The command line, for the run's record.
        console: Where the first process shows progress. None: nowhere.
        dist: The processes that train together. Each calls this with the same arguments.
        catch_signals: Whether signals that ask to stop save a checkpoint first. Otherwise no handler is
            installed. Only the main thread can catch them.
        checkpoint_every_s: Shortest time between two checkpoints, in seconds.

    Raises:
        BadConfig: The processes cannot share a batch equally, the device does not exist, memory ran out, or
            this process is not configured for the run.
        BadData: The processes have read different images.
        BadRun: The folder is not empty, or it holds no run, another run or a damaged checkpoint, or it cannot
            be written, or another process trains in it.
        Interrupted: A signal asked to stop; a checkpoint was saved first.
        TrainingFailed: Too many steps in a row were not finite, or another process of the run ended.
    """
    with _friendly_errors(run_dir), _held_folder(run_dir, dist, resume=resume) as lock:
        context = RunContext.create(config, dataset, dist=dist, console=console, command=command)
        # A signal before the first step is noted too: it stops the loop, which then saves a checkpoint.
        with ExitStack() as stack:
            signals = stack.enter_context(noted_signals()) if catch_signals else []
            if resume:
                run, train_state, progress = resume_run(context, run_dir, extend=extend)
            else:
                run, train_state, progress = create_run(context, run_dir, weights=weights)
            first_step = progress.step
            for line in summary_lines(context, run, train_state):
                say(context.console, line)
            train(
                context,
                run,
                train_state,
                progress,
                signals=signals,
                lock=lock,
                board=_tensorboard(context, run, train_state, step=first_step),
                checkpoint_every_s=checkpoint_every_s,
            )
        train_state.free_graphs()
        evaluation = None
        if dist.is_first:
            evaluation = _evaluate(context, run, train_state, is_trained=progress.step > first_step)
        evaluation = dist.broadcast(evaluation)
        assert evaluation is not None
        return Fitted(run=run, train_state=train_state, progress=progress, evaluation=evaluation)


def _evaluate(
    context: RunContext, run: RunFolder, train_state: TrainState, *, is_trained: bool
) -> Evaluation:
    """Evaluate the test images and write the figures to the run folder."""
    evaluation = evaluate_run(train_state, context.dataset, trained_on=run.read_trained_on())
    evaluation = replace(evaluation, left_out=run.told_left_out(evaluation.left_out))
    began_trained = run.record.weights_from is not None
    evaluation = advised(evaluation, train_state, run.read_metrics(), began_trained=began_trained)
    figures = evaluation.to_json_object()
    if not is_trained:
        # The weights have not changed, so the optional metrics, which may have taken hours, still hold.
        kept = run.read_evaluation() or {}
        figures |= {name: kept[name] for name in OPTIONAL_METRICS if kept.get(name) is not None}
    try:
        run.write_evaluation(figures)
    except OSError as error:
        command = shlex.join(["convvae-train", "evaluate", str(run.path)])
        say(context.console, f"figures not kept in {run.path}: {error.strerror}; later: {command}")
    return evaluation


def _tensorboard(
    context: RunContext, run: RunFolder, train_state: TrainState, *, step: int
) -> TensorBoardWriter | None:
    """Return the writer for TensorBoard in the first process, if the run writes its files."""
    if not run.config.tensorboard or not context.dist.is_first:
        return None
    dataset, _ = without_seen(context.dataset, {"the weights": run.read_trained_on()})
    images = dataset.test[varied(len(dataset.test), dataset.test_labels, NUM_PICTURES)]
    return open_tensorboard(run.tensorboard, train_state, images, step=step, console=context.console)


@contextmanager
def _held_folder(run_dir: Path, dist: DistContext, *, resume: bool) -> Iterator[RunLock | None]:
    """Make or find the run folder, and lock it in the first process, for all processes."""
    if not dist.is_first:
        yield None
        return
    with resumed_folder(run_dir) if resume else new_folder(run_dir) as lock:
        yield lock


@contextmanager
def _friendly_errors(run_dir: Path) -> Iterator[None]:
    """Report a full or read-only disk, and memory that runs out, in one line that says what is kept."""
    try:
        with enough_memory():
            yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadRun(f"run folder {run_dir} cannot be written: {reason}{_kept(run_dir)}") from None
    except TrainingFailed as error:
        raise TrainingFailed(f"{error}{_kept(run_dir)}") from None


def _kept(run_dir: Path) -> str:
    return "; the last checkpoint is kept" if has_checkpoint(run_dir) else ""
