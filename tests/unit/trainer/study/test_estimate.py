"""The time that is left of a study."""

from pathlib import Path

import pytest

from convvae_trainer.study.estimate import Estimate, RunningRun, epochs_done


def test_nothing_is_said_before_anything_is_known() -> None:
    """At the start of a study there is no time left to show."""
    estimate = Estimate()
    early = RunningRun(system="vae", elapsed_s=3.0, share_before=0.0, share=0.01)
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
    """A quarter of a run in 5 s leaves 15 s, also where a resumed run had done a part before."""
    estimate = Estimate()
    fresh = RunningRun(system="vae", elapsed_s=5.0, share_before=0.0, share=0.25)
    resumed = RunningRun(system="vae", elapsed_s=5.0, share_before=0.25, share=0.5)
    assert estimate.left_s([], [fresh], jobs=1) == pytest.approx(15)
    assert estimate.left_s([], [resumed], jobs=1) == pytest.approx(10)
    # The last run takes its time, however many processes there are.
    assert estimate.left_s([], [fresh], jobs=4) == pytest.approx(15)


def test_epochs_are_read_from_the_last_whole_line(tmp_path: Path) -> None:
    """A line that is being written is left out; without a file no epoch is done."""
    path = tmp_path / "metrics.jsonl"
    assert epochs_done(path) == 0
    path.write_text('{"epoch": 1.0}\n{"epoch": 2.5}\n{"epo')
    assert epochs_done(path) == 2.5
