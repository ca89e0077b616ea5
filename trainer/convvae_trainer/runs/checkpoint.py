"""A checkpoint: tensors and a JSON object in one safetensors file, without pickle."""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from convvae_service.bundle import sync_folder
from convvae_trainer.errors import BadRun

__all__ = ["read_checkpoint", "read_state", "replace_file", "write_checkpoint"]

FORMAT = "convvae-checkpoint-1"


def write_checkpoint(path: Path, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    """Replace the checkpoint at `path`, completely or not at all.

    Args:
        path: The file.
        tensors: Weights, optimiser moments and random state, on any device.
        state: Everything else that a resumed run needs, as JSON types.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    replace_file(path, save(plain, metadata={"format": FORMAT, "state": json.dumps(state)}))


def read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return (tensors, state) of a checkpoint, with the tensors on the CPU.

    Raises:
        BadRun: The file is missing, damaged, or not a checkpoint.
    """
    with _opened(path) as (file, state):
        return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118 - not a mapping


def read_state(path: Path) -> dict[str, Any]:
    """Return the state of a checkpoint without its tensors.

    Raises:
        BadRun: The file is missing, damaged, or not a checkpoint.
    """
    with _opened(path) as (_, state):
        return state


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a checkpoint, and yield its file and its state."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise BadRun(f"{path} is not a checkpoint of the format {FORMAT}")
            yield file, json.loads(metadata["state"])
    except FileNotFoundError:
        raise BadRun(f"{path} does not exist: the run was stopped before its first checkpoint") from None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise BadRun(f"{path} cannot be read: {' '.join(str(error).split())}") from None


def replace_file(path: Path, data: bytes) -> None:
    """Replace the file at `path`. A process killed at any moment leaves the old file or the new one.

    Raises:
        OSError: The file cannot be written. The error names `path`, not the temporary file beside it.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    sync_folder(path.parent)
