"""One batch: the rows of several calls in one run of a stage, and to each call its results."""

import logging

import numpy as np

from convvae_service.batching.pending_call import CallSlice
from convvae_service.engine.stages import Rows, Stage

__all__ = ["deliver", "run_batch"]

_log = logging.getLogger(__name__)


def deliver(slices: list[CallSlice], results: list[Rows | Exception]) -> None:
    """Give each call its part of the results, or its error."""
    for part, result in zip(slices, results, strict=True):
        try:
            if isinstance(result, Exception):
                part.call.fail(result)
            else:
                part.call.accept(part.start, result)
        except Exception as error:  # noqa: BLE001 - for example MemoryError; the other calls get their results
            _log.exception("internal error: a call could not take its results")
            part.call.fail(error)


def run_batch(stage: Stage, slices: list[CallSlice]) -> list[Rows | Exception]:
    """Run one batch. Return the results of each slice, or the error that it causes."""
    if len(slices) == 1:
        return [_run_alone(stage, slices[0])]
    try:
        inputs = zip(*(part.rows for part in slices), strict=True)
        results = stage.run(tuple([np.concatenate(arrays) for arrays in inputs]))
    except Exception:  # noqa: BLE001 - the cause is found by running the calls one by one
        # One bad row must not fail the calls that share its batch.
        _log.warning("a batch failed, running its calls one by one", exc_info=True)
        return [_run_alone(stage, part) for part in slices]
    parts: list[Rows | Exception] = []
    start = 0
    for part in slices:
        stop = start + len(part)
        parts.append(tuple([array[start:stop] for array in results]))
        start = stop
    return parts


def _run_alone(stage: Stage, part: CallSlice) -> Rows | Exception:
    try:
        return stage.run(part.rows)
    except Exception as error:  # noqa: BLE001 - it belongs to this call, which raises it
        return error
