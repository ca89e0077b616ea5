"""A result of bulk embedding, as those who read it see it: one file, or the parts of a folder.

Dimensions: B = rows of a batch, Z = latent dimension.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convvae_service.pipeline.journal import JOURNAL_FILE
from convvae_service.pipeline.npy_result import open_npy
from convvae_service.pipeline.parquet_result import ENCODER_KEYS, open_parquet
from convvae_service.pipeline.parts import RESULT_FILE
from convvae_service.pipeline.result_rows import BadResult, Result

__all__ = ["BadResult", "Result", "open_result", "vectors"]


def open_result(path: Path) -> Result:
    """Open a Parquet file, an .npy file or a folder that `convvae-embed run` has written.

    Raises:
        BadResult: It does not exist, is not complete, is damaged, was written by another program, or has
            parts of several encoders.
    """
    if path.is_dir():
        parts = _parts(path)
        opened = open_parquet([path / name for name in parts])
        if opened.rows != sum(parts.values()):
            raise BadResult(f"the parts of {str(path)!r} have {opened.rows} rows, not {sum(parts.values())}")
    elif not path.is_file():
        raise BadResult(f"{str(path)!r} {'is not a file' if path.exists() else 'does not exist'}")
    elif path.suffix.lower() == ".npy":
        opened = open_npy(path)
    else:
        opened = open_parquet([path])
    _check(opened, path.name)
    return opened


def vectors(batch: Any, column: str = "embedding") -> NDArray[np.float32]:
    """Return a column of vectors of a record batch as float32 (B, Z)."""
    values = batch.column(column)
    flat_BZ = values.flatten().to_numpy(zero_copy_only=False).reshape(len(batch), -1)
    return np.asarray(flat_BZ, np.float32)


def _check(result: Result, name: str) -> None:
    """Raise `BadResult` if the metadata or the columns are not those of a run."""
    missing = [key for key in ENCODER_KEYS if key not in result.metadata]
    if "convvae.model" in missing:
        raise BadResult(f"{name} was not written by convvae-embed: it names no model")
    if missing:
        raise BadResult(f"{name} was not written by convvae-embed run: its metadata lack {missing[0]}")
    columns = {field.name: field.type for field in result.schema}
    for column in ("id", "embedding"):
        if column not in columns:
            raise BadResult(f"{name} is not a result of convvae-embed run: it has no column {column!r}")
    size = getattr(columns["embedding"], "list_size", None)
    if str(size) != result.metadata["convvae.latent_dim"]:
        dimensions = f"{result.metadata['convvae.latent_dim']} latent dimensions"
        raise BadResult(f"{name} is damaged: its vectors are {columns['embedding']}, not of {dimensions}")


def _parts(folder: Path) -> dict[str, int]:
    """Return the names of the parts of a complete result, in order, and their numbers of rows."""
    described = folder / RESULT_FILE
    try:
        parts = {part["name"]: int(part["rows"]) for part in json.loads(described.read_text())["parts"]}
    except FileNotFoundError:
        if (folder / JOURNAL_FILE).exists():
            raise BadResult(
                f"{str(folder)!r} is not a complete result: finish it with convvae-embed run … --resume"
            ) from None
        raise BadResult(
            f"{str(folder)!r} is not a result of convvae-embed: it has no {RESULT_FILE}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise BadResult(f"{described.name} of {str(folder)!r} is damaged") from None
    for name in parts:
        if not (folder / name).is_file():
            raise BadResult(f"{str(folder)!r} lacks {name}")
    if not parts:
        raise BadResult(f"{str(folder)!r} has no rows")
    return parts
