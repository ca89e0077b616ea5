"""A sink that writes an .npy file of vectors, and beside it a JSON file of ids and metadata."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format

from convvae_service.pipeline.atomic_file import AtomicFile
from convvae_service.pipeline.errors import BadUse
from convvae_service.pipeline.sink import EncodedRows, FileSink, Provenance

__all__ = ["NpySink", "ids_path"]


def ids_path(path: Path) -> Path:
    """Return the name of the JSON file beside an .npy file."""
    return path.with_suffix(".json")


class NpySink(FileSink):
    """`NAME.npy`, (N, Z) float32 or float16, and `NAME.json` with `ids` and `metadata`; see `Sink`.

    Raises:
        BadUse: The run has a column beside ids and vectors.
    """

    def __init__(self, path: Path, provenance: Provenance, *, overwrite: bool) -> None:
        columns = provenance.columns
        if columns.log_variance or columns.score or columns.thumbnail or columns.kept:
            raise BadUse(f"{path.name} holds ids and vectors alone: give a Parquet file for further columns")
        super().__init__(path)
        self._provenance = provenance
        self._overwrite = overwrite
        self._dtype = np.dtype(np.float16 if columns.float16 else np.float32)
        self._rows = 0

    def _open(self) -> None:
        for path in (self._path, ids_path(self._path)):
            self._files.append(AtomicFile(path, overwrite=self._overwrite))
            self._streams.append(self._files[-1].path.open("wb"))
        self._write_header()
        self._streams[1].write(b'{"ids": [')

    def _write_header(self) -> None:
        """Write the header. Its length does not depend on the number of rows."""
        shape = (self._rows, self._provenance.encoder.latent_dim)
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
        self._streams[0].seek(0)
        npy_format.write_array_header_1_0(self._streams[0], header)

    def write(self, rows: EncodedRows) -> None:
        """Append rows."""
        texts = [json.dumps(row_id, ensure_ascii=False) for row_id in rows.ids]
        text = ",\n".join(texts)
        try:
            self._streams[0].write(rows.vectors("embedding", self._dtype).data)
            self._streams[1].write(((",\n" if self._rows and texts else "") + text).encode())
        except OSError as error:
            raise self._failed(error) from None
        self._rows += len(texts)

    def _complete(self, extra: Mapping[str, str]) -> None:
        metadata = json.dumps({**self._provenance.as_metadata(), **extra})
        self._streams[1].write(f'], "metadata": {metadata}}}\n'.encode())
        self._write_header()
        for stream in self._streams:
            stream.close()
