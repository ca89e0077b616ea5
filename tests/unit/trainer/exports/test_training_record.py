"""The manifest's record of a training."""

import dataclasses
from types import SimpleNamespace
from typing import Any

from convvae_trainer.data.dataset import Dataset
from convvae_trainer.exports.training_record import ENDS, training_record
from convvae_trainer.runs.fit import Fitted


def test_a_run_whose_end_was_moved_says_so(fitted: tuple[Fitted, Dataset]) -> None:
    """A straight run has one end, and no record of it; a longer one after the end has both."""
    done, dataset = fitted
    figures = done.evaluation.to_json_object()
    assert ENDS not in training_record(done.run, dataset, done.progress, figures).metrics
    (first,) = done.run.record.segments
    later = dataclasses.replace(first, step=first.step + 8, epochs=8, follows_end=True)
    record = dataclasses.replace(done.run.record, segments=(first, later))
    run: Any = SimpleNamespace(config=done.run.config, record=record)
    assert training_record(run, dataset, done.progress, figures).metrics[ENDS] == [[4, None], [8, None]]
