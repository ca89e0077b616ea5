"""The line of progress of a study."""

from pathlib import Path

from convvae_trainer.settings.layers import Layer
from convvae_trainer.study.folder import StudyFolder
from convvae_trainer.study.plan import StudyPlan, make_plan
from convvae_trainer.study.progress import StudyProgress


def planned(epochs: int = 10, **vary: tuple[object, ...]) -> StudyPlan:
    layer = Layer({"dataset": "digits", "epochs": epochs})
    return make_plan([layer], objectives="ae,vae,vae-gan", seeds="2", vary=vary)


def write_metrics(folder: StudyFolder, name: str, *, epochs: float, seconds: float) -> None:
    folder.run_dir(name).mkdir(parents=True, exist_ok=True)
    folder.metrics(name).write_text(f'{{"epoch": {epochs}, "elapsed_s": {seconds}}}\n')


def test_the_line_names_the_runs_in_training_and_their_number(tmp_path: Path) -> None:
    """One run has a number, several have the first and the last; failed runs count as ended."""
    plan = planned()
    progress = StudyProgress(StudyFolder(tmp_path), plan.runs, finished={"ae-seed0": 10.0}, jobs=2)
    progress.begin(plan.runs[1])
    assert progress.text(columns=59).startswith("run 2 of 6  vae-seed0")
    progress.begin(plan.runs[2])
    assert progress.text(columns=59).startswith("runs 2-3 of 6  vae-seed0, vae-gan-seed0")
    assert progress.end("vae-seed0", None) is plan.runs[1]
    assert progress.text(columns=59).startswith("run 3 of 6  vae-gan-seed0")


def test_the_time_left_comes_from_finished_runs_and_from_those_in_training(tmp_path: Path) -> None:
    """A finished run tells the time of its system; a run in training has the rest of its own time left."""
    plan, folder = planned(), StudyFolder(tmp_path)
    runs = [run for run in plan.runs if run.system == "vae"]
    progress = StudyProgress(folder, runs, finished={"vae-seed0": 100.0}, jobs=1)
    assert progress.text(columns=59) == "run 1 of 2    1:40 left"
    progress.begin(runs[1])
    write_metrics(folder, "vae-seed1", epochs=2.5, seconds=20.0)
    progress.look()
    # A quarter in 20 s leaves 60 s.
    assert progress.text(columns=59) == "run 2 of 2  vae-seed1  1:00 left"
    assert progress.share == (1 + 0.25) / 2
    progress.end("vae-seed1", 80.0)
    progress.look()
    assert progress.share == 1


def test_a_resumed_run_does_not_count_as_a_whole_one(tmp_path: Path) -> None:
    """Its second half took 10 s: that is not the time of a run of its system."""
    plan, folder = planned(), StudyFolder(tmp_path)
    runs = [run for run in plan.runs if run.system == "vae"]
    write_metrics(folder, "vae-seed0", epochs=5.0, seconds=10.0)
    progress = StudyProgress(folder, runs, finished={}, jobs=1)
    progress.begin(runs[0])
    progress.end("vae-seed0", 10.0)
    assert "left" not in progress.text(columns=59)


def test_the_line_has_room_for_the_bar(tmp_path: Path) -> None:
    """Many long names are cut, so that the line and the bar fit into 80 columns."""
    plan = planned(latent_dim=(16, 32), learning_rate=(0.001, 0.002))
    progress = StudyProgress(StudyFolder(tmp_path), plan.runs, finished={}, jobs=8)
    for run in plan.runs[:8]:
        progress.begin(run)
    progress.look()
    text = progress.text(columns=59)
    assert len(text) <= 59
    assert len(progress.text(columns=39)) <= 39
    assert len(progress.text(columns=29)) <= 29
    assert text.startswith("runs 1-8 of 24  ae-latent-dim-16-learning-rate-0.001-seed0")
