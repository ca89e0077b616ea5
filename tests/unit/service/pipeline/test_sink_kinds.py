"""The table of sinks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from convvae_service.images import ModelInput
from convvae_service.pipeline import sink_kinds as table
from convvae_service.pipeline.atomic_file import AtomicFile
from convvae_service.pipeline.encoder import Embeddings, EncoderInfo
from convvae_service.pipeline.errors import BadSink
from convvae_service.pipeline.sink import Columns, EncodedRows, Provenance


class TextSink:
    """A sink that writes one line per row: a kind that a test adds."""

    def __init__(self, path: Path, provenance: Provenance, *, overwrite: bool) -> None:
        del overwrite
        self._path = path
        self._lines = [f"# {provenance.source}"]

    def write(self, rows: EncodedRows) -> None:
        pairs = zip(rows.ids, rows.embeddings.mean, strict=True)
        self._lines += [f"{row_id} {mean.sum():g}" for row_id, mean in pairs]

    def finish(self, extra: Mapping[str, str], beside: AtomicFile | None = None) -> int:
        del extra, beside
        return self._path.write_text("\n".join(self._lines))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def test_a_new_kind_is_one_class_and_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_input: ModelInput
) -> None:
    """A row in the table is all that a new sink needs to be opened by its suffix."""
    path = tmp_path / "z.txt"
    with pytest.raises(BadSink, match=r"^z\.txt is not a sink: its name must end in \.parquet or \.npy"):
        table.check_sink(path, overwrite=False)
    row = table.SinkKind(".txt", lambda: None, TextSink)
    monkeypatch.setattr(table, "SINK_KINDS", (*table.SINK_KINDS, row))
    table.check_sink(path, overwrite=False)
    info = EncoderInfo(
        input=tiny_input, version=1, precision="fp32", sha256="ab" * 32, latent_dim=2, has_log_variance=True
    )
    provenance = Provenance(encoder=info, source="x.npy", columns=Columns())
    with table.open_sink(path, provenance, overwrite=False) as sink:
        sink.write(EncodedRows(["a", "b"], Embeddings(np.ones((2, 2), np.float32))))
        sink.finish({})
    assert path.read_text() == "# x.npy\na 2\nb 2"
    with pytest.raises(BadSink, match=r"must end in \.parquet or \.npy or \.txt, or have"):
        table.check_sink(tmp_path / "z.csv", overwrite=False)
