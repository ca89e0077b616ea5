"""The version that follows a published one: the same graphs and files, and graphs in further precisions."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import onnx

from convvae_service.bundle import (
    MANIFEST_FILE,
    SCHEMA_VERSION,
    TRAINED_ON_FILE,
    Accuracy,
    Bundle,
    Graph,
    Manifest,
    describe_graph,
    encode_trained_on,
    publish,
)
from convvae_trainer.data.trained_on import Fingerprints
from convvae_trainer.errors import ExportFailed
from convvae_trainer.exports.card_tables import accuracy_table
from convvae_trainer.exports.conversion import Converted
from convvae_trainer.exports.publish import MODEL_CARD, Exported

__all__ = ["publish_successor"]


def publish_successor(
    folder: Path, bundle: Bundle, converted: Sequence[Converted], trained_on: Fingerprints | None = None
) -> Exported:
    """Publish the next version of a model: that of `folder`, with converted graphs beside its own.

    Args:
        folder: The folder of the version that is followed, ROOT/MODEL/VERSION.
        bundle: The version, read and verified.
        converted: Its graphs in further precisions.
        trained_on: Its fingerprints of the training images; None: it has none.

    Raises:
        ExportFailed: The disk cannot be read or written; nothing was published.
    """
    manifest = bundle.manifest
    described = [(graph, one.graphs[graph.role]) for one in converted for graph in _described(manifest, one)]
    files = {graph.file: bundle.graphs[graph.role, graph.precision] for graph in manifest.graphs}
    files |= {graph.file: data for graph, data in described}
    entry = None
    if trained_on is not None:
        entry, files[TRAINED_ON_FILE] = encode_trained_on(trained_on)
    successor = dataclasses.replace(
        manifest,
        schema_version=SCHEMA_VERSION,
        graphs=(*manifest.graphs, *(graph for graph, _ in described)),
        parity=manifest.parity | {one.precision: one.parity for one in converted},
        # Versions of schema 1 have no entry for fp32.
        accuracy={"fp32": Accuracy.exact(has_elbo=manifest.has_log_variance)}
        | manifest.accuracy
        | {one.precision: one.accuracy for one in converted},
        trained_on=entry,
    )
    try:
        extras = _extras(folder, without={*files, MANIFEST_FILE})
        card = extras.get(MODEL_CARD, f"# {manifest.model}\n".encode())
        extras[MODEL_CARD] = card + "".join(_section(bundle, one) for one in converted).encode()
        made = publish(folder.parent.parent, successor, files, extras)
    except OSError as error:
        raise ExportFailed(
            f"{folder.parent} cannot be written: {error.strerror}; nothing was published"
        ) from None
    return Exported(folder=made, manifest=successor)


def _described(manifest: Manifest, converted: Converted) -> list[Graph]:
    return [
        describe_graph(
            data,
            role=role,
            precision=converted.precision,
            opset=onnx.load_from_string(data).opset_import[0].version,
            image=manifest.image,
            latent_dim=manifest.latent_dim,
            has_log_variance=manifest.has_log_variance,
        )
        for role, data in converted.graphs.items()
    ]


def _extras(folder: Path, *, without: set[str]) -> dict[str, bytes]:
    """Return the other files of a version, such as its pictures, by name."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.name not in without and path.is_file() and not path.is_symlink()
    }


def _section(bundle: Bundle, converted: Converted) -> str:
    """Return the section of the model card about the graphs of one precision."""
    text = f"""
## Graphs in {converted.precision}

Version {bundle.version} with further graphs. Compared with fp32, in ONNX Runtime on the CPU:

{accuracy_table(converted.accuracy, converted.parity)}
"""
    if converted.precision != "int8":
        return text + "These graphs are for GPUs. The last steps, from the last layer on, are in fp32.\n"
    return text + (
        "Static quantisation (QDQ, per channel): uint8 activations and int8 weights of"
        f" {converted.weight_bits} bits.\n"
        f"{converted.calibration_images} training images gave the ranges."
        f" Kept in fp32: {converted.kept_text or 'no layer'}.\n"
    )
