"""The time that is left of a study."""

from pathlib import Path

import pytest

from convvae_trainer.study.estimate import Estimate, RunningRun, training_so_far


def test_nothing_is_said_before_anything_is_known() -> None:
    """At the start of a study there is no time left to show."""
    estimate = Estimate()
    early = RunningRun(system="vae", trained_s=3.0, share=0.01)
    assert estimate.left_s(["ae"], [], jobs=1) is None
    assert estimate.left_s(["ae"], [early], jobs=1) is None


def test_finished_runs_of_a_system_tell_how_long_others_take() -> None:
    """A waiting run takes as long as the mean of its system, one of an unknown system as the mean of all."""
    estimate = Estimate()
    estimate.add("vae", 10.0)
    estimate.add("vae", 20.0)
    estimate.add("vae-gan", 45.0)
    assert estimate.left_s(["vae", "vae-gan", "ae"], [], jobs=1) == pytest.approx(15 + 45 + 30)
    assert estimate.left_s(["vae", "vae-gan", "ae"], [], jobs=2) == pytest.approx(45)


def test_a_run_in_training_tells_its_own_speed() -> None:
    """A quarter of a run in 5 s leaves 15 s, also for a run of its system that waits."""
    estimate = Estimate()
    running = RunningRun(system="vae", trained_s=5.0, share=0.25)
    assert estimate.left_s([], [running], jobs=1) == pytest.approx(15)
    assert estimate.left_s(["vae"], [running], jobs=1) == pytest.approx(15 + 20)
    # The last run takes its time, however many processes there are.
    assert estimate.left_s([], [running], jobs=4) == pytest.approx(15)


def test_the_last_whole_line_of_metrics_counts(tmp_path: Path) -> None:
    """A line that is being written is left out; without a file nothing is trained."""
    path = tmp_path / "metrics.jsonl"
    assert training_so_far(path) == (0, 0)
    path.write_text('{"epoch": 1.0, "elapsed_s": 2}\n{"epoch": 2.5, "elapsed_s": 4}\n{"epoch": 3')
    assert training_so_far(path) == (2.5, 4)
