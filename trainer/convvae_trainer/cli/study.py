"""The command `convvae-train study`: matched runs and their report. torch loads inside the command."""

import functools
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from convvae_trainer.cli.flags import ConfigFile, Download, Json, Preset, with_setting_flags
from convvae_trainer.cli.results import print_json, print_study
from convvae_trainer.commands.packages import TRAINER_PACKAGES, require, require_runtime
from convvae_trainer.errors import RunsFailed
from convvae_trainer.runs.signals import raise_on_signals
from convvae_trainer.settings.layers import FLAGS, Layer, read_settings
from convvae_trainer.settings.objectives import OBJECTIVES
from convvae_trainer.settings.presets import preset_settings
from convvae_trainer.settings.sweep import DEFAULT_SEEDS, parse_vary
from convvae_trainer.streams import expendable, required_stdout

if TYPE_CHECKING:
    from convvae_trainer.study.result import StudyResult

__all__ = ["study"]

_STUDY = "Study"


@functools.partial(with_setting_flags, without=("objective", "seed"))
def study(
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Keep runs, models and report in this folder. The same command goes on with a study that was"
            " stopped.",
            rich_help_panel=_STUDY,
        ),
    ],
    objectives: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Train these objectives.",
            show_default=",".join(OBJECTIVES),
            rich_help_panel=_STUDY,
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N|A,B",
            help="Train each model with this number of seeds, from 0 on, or with the seeds of a list.",
            show_default=str(DEFAULT_SEEDS),
            rich_help_panel=_STUDY,
        ),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SETTING=A,B",
            help="Train each model with each of these values of a setting, such as latent_dim=16,32. Several"
            " --vary make a grid.",
            show_default=False,
            rich_help_panel=_STUDY,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            metavar="N",
            help="Train this number of runs at a time. They share the CPUs.",
            show_default="one for each CPU; 1 on a GPU",
            rich_help_panel=_STUDY,
        ),
    ] = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report/--no-report",
            metavar="",
            help="Write DIR/report.html at the end.",
            rich_help_panel=_STUDY,
        ),
    ] = True,
    as_json: Json = False,
    preset: Preset = None,
    config: ConfigFile = None,
    *,
    download: Download = False,
    **settings: Any,
) -> None:
    """Train matched models with several objectives, seeds and settings, and compare them in one report.

    All runs have the same data, likelihood, networks and number of steps, except for what --vary varies.

    Example: convvae-train study --dataset digits --seeds 3 --out studies/digits
    """
    varied = parse_vary(vary or [])
    require(*TRAINER_PACKAGES, "matplotlib")
    require_runtime()
    layers = [
        Layer(preset_settings(preset), f"preset {preset}"),
        Layer({}) if config is None else read_settings(config),
        Layer(settings, FLAGS),
    ]
    from convvae_trainer.commands.study import StudyOptions, run_study

    raise_on_signals()
    # With --json, stdout is for the result alone.
    progress = Console(file=expendable(sys.stderr if as_json else sys.stdout))
    result = run_study(
        StudyOptions(
            layers=layers,
            out=out,
            objectives=objectives,
            seeds=seeds,
            vary=varied,
            jobs=jobs,
            download=download,
            report=report,
        ),
        command=shlex.join(["convvae-train", *sys.argv[1:]]),
        console=progress,
    )
    if as_json:
        print_json(result.to_json_object())
    else:
        print_study(Console(file=required_stdout()), result)
    _check_failures(result)


def _check_failures(result: "StudyResult") -> None:
    """Raise `RunsFailed` if runs have failed: what is kept, where the reasons are, and how to go on."""
    if result.failed:
        names = ", ".join(result.failed)
        count = f"{len(result.failed)} of {len(result.plan.runs)} runs failed ({names})"
        logs = result.folder.runs / "NAME" / "log.txt"
        raise RunsFailed(
            f"{count}; the others are kept. {logs} has the reasons; the same command trains what is missing"
        )
