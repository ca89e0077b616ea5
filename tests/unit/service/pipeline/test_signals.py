"""Signals at every moment of a sink: the file is complete or absent."""

import inspect
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from convvae_service.images import ModelInput
from convvae_service.pipeline import atomic_file, parquet_sink
from convvae_service.pipeline.encoder import Embeddings, EncoderInfo
from convvae_service.pipeline.errors import Interrupted
from convvae_service.pipeline.parquet_sink import ParquetSink
from convvae_service.pipeline.signals import defer_signals, interrupt_on_signals
from convvae_service.pipeline.sink import Columns, EncodedRows, Provenance

FILES = (parquet_sink.__file__, atomic_file.__file__)
HOLD = inspect.unwrap(defer_signals).__code__
SIGNALS = [signal.SIGINT, signal.SIGTERM]


def send_at(moment: int, act: Callable[[], None]) -> bool:
    """Run `act` with SIGTERM before its `moment`th line in the sink. Return False if it has fewer lines."""
    lines = 0

    def on_line(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in FILES and frame.f_code is not HOLD:
            return None
        lines += event == "line"
        if event == "line" and lines == moment:
            sys.settrace(None)
            signal.raise_signal(signal.SIGTERM)
        return on_line

    before = sys.gettrace()
    sys.settrace(on_line)
    try:
        act()
    finally:
        sys.settrace(before)
    return lines >= moment


def test_a_signal_at_any_line_leaves_no_half_of_a_sink(tmp_path: Path, tiny_input: ModelInput) -> None:
    """A signal while the file is created, written, published or removed leaves a complete file or none."""
    info = EncoderInfo(
        input=tiny_input, version=1, precision="fp32", sha256="ab" * 32, latent_dim=4, has_log_variance=True
    )
    provenance = Provenance(encoder=info, source="x.npy", columns=Columns())
    outcomes: list[bool] = []

    def act() -> None:
        with interrupt_on_signals(), ParquetSink(folder / "x.parquet", provenance, overwrite=False) as sink:
            sink.write(EncodedRows(["a"], Embeddings(np.zeros((1, 4), np.float32))))
            sink.finish({})

    for moment in range(1, 1000):
        folder = tmp_path / str(moment)
        folder.mkdir()
        try:
            if not send_at(moment, act):
                break
        except Interrupted:
            assert list(folder.iterdir()) == []
            outcomes.append(False)
        else:
            assert [path.name for path in folder.iterdir()] == ["x.parquet"]
            assert pq.read_table(folder / "x.parquet").num_rows == 1
            outcomes.append(True)
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {False, True}


@pytest.mark.parametrize("number", SIGNALS)
def test_a_held_signal_comes_at_the_end_of_the_block(number: signal.Signals) -> None:
    """A deferred block is completed first, and then the run stops."""
    done = []

    def act() -> None:
        with defer_signals():
            signal.raise_signal(number)
            done.append("held")
        done.append("not reached")

    with pytest.raises(Interrupted) as caught, interrupt_on_signals():
        act()
    assert done == ["held"]
    assert caught.value.exit_code == 128 + number


def test_holding_without_a_handler_changes_nothing() -> None:
    """Outside a command, signals are not changed."""
    before = [signal.getsignal(number) for number in SIGNALS]
    with defer_signals():
        assert [signal.getsignal(number) for number in SIGNALS] == before
    assert [signal.getsignal(number) for number in SIGNALS] == before
