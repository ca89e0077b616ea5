"""The command `convvae-train fit`: every setting of a run as a flag. torch loads inside the command."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from convvae_trainer.cli.flags import ConfigFile, Download, Json, Preset, with_setting_flags
from convvae_trainer.cli.results import print_evaluation, print_exported, print_json, print_line, quoted
from convvae_trainer.commands.packages import TRAINER_PACKAGES, require, require_runtime
from convvae_trainer.errors import BadConfig, Interrupted
from convvae_trainer.runs.signals import Stopped, raise_on_signals
from convvae_trainer.settings.declaration import Panel
from convvae_trainer.settings.layers import FLAGS, Layer
from convvae_trainer.settings.run_settings import run_settings
from convvae_trainer.streams import expendable

if TYPE_CHECKING:
    from convvae_trainer.commands.fit import FitResult
    from convvae_trainer.runs.start_weights import StartWeights

__all__ = ["fit"]

# Flags of the first command that a resumed run needs again: they are no settings of the run, or may differ.
_REPEATED = ("models", "name", "data_root", "device")
# Those that a resumed run needs again, where it found its data in another place.
_MOVED_DATA = ("dataset", "test_dataset", "validation_dataset")


@with_setting_flags
def fit(
    run_dir: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Write settings, metrics and checkpoints to this new folder.",
            rich_help_panel=Panel.RUN,
        ),
    ],
    preset: Preset = None,
    config: ConfigFile = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            metavar="",
            help="Continue the run in --run-dir. With --epochs or --minutes, train it to this later end.",
            rich_help_panel=Panel.RUN,
        ),
    ] = False,
    start_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN|ROOT/MODEL",
            help="Start from the weights of this run, or of this published model, which may have @VERSION."
            " Networks, objective and likelihood are theirs where no flag says otherwise.",
            show_default="random weights",
            rich_help_panel=Panel.RUN,
        ),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(
            metavar="ROOT",
            help="Export the model to this model repository at the end.",
            rich_help_panel=Panel.RUN,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Export the model by this name.", rich_help_panel=Panel.RUN),
    ] = None,
    as_json: Json = False,
    *,
    download: Download = False,
    **settings: Any,
) -> None:
    """Train a model on a data set and evaluate it. With --models and --name, also export it.

    Example: convvae-train fit --dataset digits --run-dir runs/digits
    """
    if (models is None) != (name is None):
        raise BadConfig("--models and --name go together: give both to export the model")
    if start_from is not None and resume:
        raise BadConfig("--from starts a new run, and --resume continues one: give one of them")
    require(*TRAINER_PACKAGES)
    if models is not None:
        require_runtime()
    weights = None
    if start_from is not None:
        from convvae_trainer.commands.start_weights import read_start_weights

        weights = read_start_weights(start_from)
    run_config = run_settings(
        Layer(settings, FLAGS), preset=preset, file=config, below=_below(run_dir, weights, resume=resume)
    )
    from convvae_trainer.commands.fit import ExportTarget, run_fit
    from convvae_trainer.runs.ownership import has_checkpoint

    raise_on_signals()
    # With --json, stdout is for the result alone.
    console = Console(file=expendable(sys.stderr if as_json else sys.stdout))
    given = {"models": models, "name": name, **settings}
    try:
        result = run_fit(
            run_config,
            run_dir,
            resume=resume,
            # The end of a resumed run may be moved by the flags.
            extend=settings["epochs"] is not None or settings["minutes"] is not None,
            weights=weights,
            download=download,
            target=None if models is None or name is None else ExportTarget(models, name),
            command=shlex.join(["convvae-train", *sys.argv[1:]]),
            console=console,
        )
    except Interrupted as stopped:
        command = _resume_command(run_dir, given, resume=resume)
        raise Interrupted(stopped.number, step=stopped.step, resume=command) from None
    except Stopped as stopped:
        if has_checkpoint(run_dir):
            command = _resume_command(run_dir, given, resume=resume)
            stopped.text += f"; the last checkpoint is kept: {command}"
        raise
    if result is not None and as_json:
        print_json({"run": str(run_dir), **result.to_json_object()})
    elif result is not None:
        _print_result(console, result, run_dir, models)


def _below(run_dir: Path, weights: "StartWeights | None", *, resume: bool) -> Layer | None:
    """Return the settings that flags, file and preset override."""
    if weights is not None:
        return weights.defaults
    if not resume:
        return None
    from convvae_trainer.runs.folder import RunFolder

    return RunFolder.open(run_dir).settings


def _resume_command(run_dir: Path, given: dict[str, Any], *, resume: bool) -> str:
    """Return the command that continues a run, with the flags that the run folder does not know."""
    words = ["convvae-train", "fit", "--resume", "--run-dir", str(run_dir)]
    for name in (*_REPEATED, *_MOVED_DATA) if resume else _REPEATED:
        if given[name] is not None:
            words += ["--" + name.replace("_", "-"), str(given[name])]
    if resume and given["cuda_graph"] is not None:
        words.append("--cuda-graph" if given["cuda_graph"] else "--no-cuda-graph")
    return shlex.join(words)


def _print_result(console: Console, result: "FitResult", run_dir: Path, models: Path | None) -> None:
    print_evaluation(console, result.evaluation)
    print_line(console, "run", str(run_dir))
    if result.exported is None or models is None:
        command = f"convvae-train export {quoted(run_dir)} --models models --name NAME"
        print_line(console, "next", command)
    else:
        print_exported(console, result.exported, models=models)
