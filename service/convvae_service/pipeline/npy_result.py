"""A result in an .npy file of vectors and a JSON file of ids and metadata, opened for reading.

Dimensions: N = rows, Z = latent dimension.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convvae_service.pipeline.npy_sink import ids_path
from convvae_service.pipeline.parquet_sink import import_pyarrow
from convvae_service.pipeline.result_rows import BadResult, Result

__all__ = ["open_npy"]


def open_npy(path: Path) -> Result:
    """Open an .npy file and the JSON file beside it. The vectors stay on disk, the ids are held in memory.

    Raises:
        BadResult: One of the two is missing or damaged, or they are not of one run.
    """
    arrow = import_pyarrow()
    names = ids_path(path)
    try:
        described = json.loads(names.read_bytes())
        ids, metadata = list(described["ids"]), dict(described["metadata"])
    except FileNotFoundError:
        raise BadResult(f"{names.name} is missing, which has the ids of {path.name}") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise BadResult(f"{names.name} is damaged, or was not written by convvae-embed") from None
    try:
        vectors_NZ = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadResult(f"{path.name} is not an .npy file, or is damaged: {error}") from None
    if vectors_NZ.ndim != 2 or vectors_NZ.dtype not in (np.float16, np.float32):
        raise BadResult(f"{path.name} has no vectors: its array is {vectors_NZ.dtype} {vectors_NZ.shape}")
    if len(ids) != len(vectors_NZ):
        raise BadResult(f"{path.name} has {len(vectors_NZ)} vectors, and {names.name} has {len(ids)} ids")
    kind = arrow.list_(arrow.from_numpy_dtype(vectors_NZ.dtype), vectors_NZ.shape[1])
    schema = arrow.schema([("id", arrow.string()), ("embedding", kind)])

    def read(columns: Sequence[str], rows: int) -> Iterator[Any]:
        for start in range(0, len(ids), rows):
            part = slice(start, start + rows)
            flat = arrow.array(np.ascontiguousarray(vectors_NZ[part]).reshape(-1))
            table = arrow.record_batch(
                [
                    arrow.array(ids[part], arrow.string()),
                    arrow.FixedSizeListArray.from_arrays(flat, type=kind),
                ],
                schema=schema,
            )
            yield table.select(list(columns))

    return Result([path, names], len(ids), metadata, schema, read)
