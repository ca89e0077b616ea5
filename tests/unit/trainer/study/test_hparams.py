"""The table of a study for TensorBoard's HParams."""

import dataclasses
import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from convvae_trainer.exports.publish import Exported
from convvae_trainer.settings.layers import Layer
from convvae_trainer.study.folder import StudyFolder
from convvae_trainer.study.hparams import HParamsTable
from convvae_trainer.study.plan import StudyPlan, make_plan


def planned(**settings: Any) -> StudyPlan:
    layer = Layer({"dataset": "digits", **settings})
    return make_plan([layer], objectives="ae,vae", seeds="1", vary={"beta": (0.5, 2.0)})


@pytest.fixture
def folder(tmp_path: Path, published_blobs: tuple[Path, Exported]) -> StudyFolder:
    """The folder of a study whose run `vae-beta-2-seed0` is finished."""
    folder = StudyFolder(tmp_path)
    shutil.copytree(published_blobs[0] / "blobs", folder.models / "vae-beta-2-seed0")
    return folder


def read(path: Path) -> EventAccumulator:
    return EventAccumulator(str(path)).Reload()


def test_the_plugin_reads_settings_and_figures(folder: StudyFolder) -> None:
    """The columns stand in the folder of runs, and the values of a run in its own folder."""
    plan = planned()
    manifest = folder.manifest("vae-beta-2-seed0")
    assert manifest is not None
    HParamsTable(folder, plan, Console(quiet=True)).write({"vae-beta-2-seed0": manifest})
    content = read(folder.runs).PluginTagToContent(metadata.PLUGIN_NAME)[metadata.EXPERIMENT_TAG]
    experiment = metadata.parse_experiment_plugin_data(content)
    assert {each.name: list(each.domain_discrete) for each in experiment.hparam_infos} == {
        "objective": ["ae", "vae"],
        "seed": [0.0],
        "beta": [0.5, 2.0],
    }
    row = read(folder.run_dir("vae-beta-2-seed0"))
    contents = row.PluginTagToContent(metadata.PLUGIN_NAME)
    start = metadata.parse_session_start_info_plugin_data(contents[metadata.SESSION_START_INFO_TAG])
    assert start.group_name == "vae-beta-2-seed0"
    assert start.hparams["objective"].string_value == "vae"
    assert start.hparams["beta"].number_value == 2.0
    metadata.parse_session_end_info_plugin_data(contents[metadata.SESSION_END_INFO_TAG])
    shown = {info.name.tag for info in experiment.metric_infos}
    assert "test/mse" in shown
    figures = manifest.training.metrics
    assert row.Scalars("test/mse")[0].value == pytest.approx(figures["test_mse"])
    assert {tag for tag in row.Tags()["scalars"] if tag.startswith("test/")} <= shown


def test_a_row_is_there_once(folder: StudyFolder) -> None:
    """A study that goes on writes the table again, in place of the old one."""
    manifest = folder.manifest("vae-beta-2-seed0")
    assert manifest is not None
    for _ in range(2):
        HParamsTable(folder, planned(), Console(quiet=True)).write({"vae-beta-2-seed0": manifest})
    assert len(list(folder.path.rglob("events.out.tfevents.*"))) == 2


def test_a_table_that_cannot_be_written_ends_no_study(folder: StudyFolder) -> None:
    """One line says why, however many rows follow; without TensorBoard's files there is neither."""
    folder.runs.write_text("a file in place of the folder")
    screen = io.StringIO()
    table = HParamsTable(folder, planned(), Console(file=screen, width=200))
    table.write({})
    table.add(planned().runs[0])
    assert screen.getvalue().count("\n") == 1
    assert "no table for TensorBoard: " in screen.getvalue()
    quiet = dataclasses.replace(planned(tensorboard=False))
    HParamsTable(folder, quiet, Console(file=screen, width=200)).write({})
    assert screen.getvalue().count("\n") == 1
