"""A published model as a model repository of NVIDIA Triton: a folder for each graph, with its config.pbtxt.

The graphs go in unchanged. Triton's batch dimension is theirs, so `dims` state one row.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convvae_service.bundle import Bundle, Graph, Precision, TensorSpec
from convvae_trainer.errors import BadConfig, ExportFailed

__all__ = ["KINDS", "TritonOptions", "triton_config", "write_triton"]

# The places where an instance runs: Triton chooses, on processors, or on the GPUs that Triton sees.
KINDS = {"auto": "KIND_AUTO", "cpu": "KIND_CPU", "gpu": "KIND_GPU"}
_DTYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}


@dataclass(frozen=True, kw_only=True, slots=True)
class TritonOptions:
    """How Triton runs the graphs.

    Attributes:
        precision: The graphs that are written.
        max_batch_size: Rows in a batch of Triton's dynamic batching, at least 1.
        max_queue_delay_us: Microseconds that a row waits for others.
        instances: Batches that run at the same time, for each graph; for `gpu` on each GPU.
        kind: A key of `KINDS`.
    """

    precision: Precision = "fp32"
    max_batch_size: int = 256
    max_queue_delay_us: int = 0
    instances: int = 1
    kind: str = "auto"


def write_triton(bundle: Bundle, out: Path, options: TritonOptions) -> Sequence[Path]:
    """Write OUT/MODEL.encoder and OUT/MODEL.decoder, and return them. Each appears whole.

    Args:
        bundle: The model. Its version is the version in Triton.
        out: The model repository, which is made if it is missing.
        options: See `TritonOptions`.

    Raises:
        BadConfig: The model has no such precision, or one of the folders exists.
        ExportFailed: A file cannot be written.
    """
    graphs = [graph for graph in bundle.manifest.graphs if graph.precision == options.precision]
    if not graphs:
        known = ", ".join(sorted({graph.precision for graph in bundle.manifest.graphs}))
        raise BadConfig(
            f"model {bundle.manifest.model!r} has no graphs in {options.precision}: it has {known}, see"
            " --precision"
        )
    folders = [out / f"{bundle.manifest.model}.{graph.role}" for graph in graphs]
    for folder in folders:
        if folder.exists():
            raise BadConfig(f"{folder} exists: remove it, or give another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for graph, folder in zip(graphs, folders, strict=True):
            _write(bundle, graph, folder, options)
    except OSError as error:
        raise ExportFailed(f"{error.filename or out} cannot be written: {error.strerror}") from None
    return folders


def triton_config(name: str, graph: Graph, options: TritonOptions) -> str:
    """Return the config.pbtxt of a graph: Triton's `ModelConfig` as protobuf text."""
    lines = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {options.max_batch_size}",
        *_tensors("input", graph.inputs),
        *_tensors("output", graph.outputs),
        "dynamic_batching {",
        f"  max_queue_delay_microseconds: {options.max_queue_delay_us}",
        "}",
        "instance_group [",
        f"  {{ kind: {KINDS[options.kind]} count: {options.instances} }}",
        "]",
    ]
    if options.kind == "cpu":
        # Instances are the parallel work: with threads of their own they would compete for the processors.
        lines += ["parameters {", '  key: "intra_op_thread_count"', '  value { string_value: "1" }', "}"]
    for rows in sorted({1, options.max_batch_size}):
        lines += _warm_up(rows, graph.inputs)
    return "\n".join(lines) + "\n"


def _write(bundle: Bundle, graph: Graph, folder: Path, options: TritonOptions) -> None:
    # A hidden sibling: Triton may watch the repository.
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".unfinished", dir=folder.parent))
    try:
        unfinished.chmod(0o755)
        (unfinished / "config.pbtxt").write_text(triton_config(folder.name, graph, options), encoding="utf-8")
        version = unfinished / str(bundle.version)
        version.mkdir()
        (version / "model.onnx").write_bytes(bundle.graphs[graph.role, graph.precision])
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _tensors(field: str, tensors: Sequence[TensorSpec]) -> list[str]:
    items = [
        f'  {{ name: "{tensor.name}" data_type: {_DTYPES[tensor.dtype]} dims: {_dims(tensor)} }}'
        for tensor in tensors
    ]
    return [f"{field} [", *[f"{item}," for item in items[:-1]], items[-1], "]"]


def _dims(tensor: TensorSpec) -> list[int]:
    return [int(size) for size in tensor.shape[1:]]


def _warm_up(rows: int, inputs: Sequence[TensorSpec]) -> list[str]:
    lines = ["model_warmup {", f'  name: "{rows} rows"', f"  batch_size: {rows}"]
    for tensor in inputs:
        value = f"data_type: {_DTYPES[tensor.dtype]} dims: {_dims(tensor)} zero_data: true"
        lines.append(f'  inputs {{ key: "{tensor.name}" value {{ {value} }} }}')
    return [*lines, "}"]
