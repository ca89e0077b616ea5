"""The manifest of a bundle: the description of one model version.

A manifest is one JSON object. Its keys are the fields of `Manifest`; nested objects are the records of this
wing. A key that this program does not know is an error: a format with new keys has a new `schema_version`,
and every reader can tell.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Self

from convvae_service.bundle.errors import BundleError
from convvae_service.bundle.graphs import PRECISIONS, ROLES, Graph, Precision, expected_tensors
from convvae_service.bundle.json_records import decode_record, parse_object
from convvae_service.bundle.names import check_model_name, check_objective_name
from convvae_service.bundle.records import Accuracy, ImageShape, LikelihoodSpec, Parity, Resize, Training
from convvae_service.bundle.trained_on import TrainedOn

__all__ = ["CAPABILITIES", "SCHEMA_VERSION", "Manifest"]

# Version 2 has `accuracy`. In version 1 only fp32 can do without it. Version 3 has `trained_on`.
SCHEMA_VERSION = 3
CAPABILITIES = ("encode", "decode", "sample", "reconstruct", "score")


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """All facts about a model version that a reader needs before it opens a graph.

    `trained_on` is the entry for the fingerprints of the training images; None: the version has none.
    """

    model: str
    objective: str
    likelihood: LikelihoodSpec
    image: ImageShape
    latent_dim: int
    capabilities: tuple[str, ...]
    graphs: tuple[Graph, ...]
    parity: dict[str, Parity]
    training: Training
    resize: Resize
    accuracy: dict[str, Accuracy] = field(default_factory=dict)
    trained_on: TrainedOn | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_model_name(self.model)
        check_objective_name(self.objective)
        if not 1 <= self.latent_dim <= 65536:
            raise BundleError(f"latent_dim is {self.latent_dim}: it must be 1 to 65536")
        if unknown := set(self.capabilities) - set(CAPABILITIES):
            raise BundleError(f"unknown capabilities {sorted(unknown)}: known are {', '.join(CAPABILITIES)}")
        self._check_graphs()
        self._check_entries()
        if not self.has_log_variance and not {"sample", "score"}.isdisjoint(self.capabilities):
            raise BundleError("the capabilities sample and score need a log_variance output of the encoder")

    def _check_graphs(self) -> None:
        seen: set[tuple[str, str]] = set()
        for graph in self.graphs:
            key = (graph.role, graph.precision)
            if key in seen:
                raise BundleError(f"two {graph.precision} {graph.role} graphs: at most one is allowed")
            seen.add(key)
            inputs, outputs = expected_tensors(
                graph.role,
                image=self.image,
                latent_dim=self.latent_dim,
                has_log_variance=self.has_log_variance,
            )
            if graph.inputs != inputs or graph.outputs != outputs:
                raise BundleError(f"inputs or outputs of {graph.file} contradict image or latent_dim")
        for role in ROLES:
            if not any(graph.role == role for graph in self.graphs):
                raise BundleError(f"no {role} graph is listed")

    def _check_entries(self) -> None:
        """Refuse graphs of a precision that nobody has compared with its reference."""
        for precision in sorted({graph.precision for graph in self.graphs}):
            has_accuracy = precision in self.accuracy or (self.schema_version, precision) == (1, "fp32")
            for name, is_there in (("parity", precision in self.parity), ("accuracy", has_accuracy)):
                if not is_there:
                    raise BundleError(
                        f"{name} has no entry for the {precision} graphs, so their results are not checked:"
                        " publish graphs with convvae-train export or quantize"
                    )

    @property
    def files(self) -> dict[str, str]:
        """The sha256 of each file that the manifest lists, by name."""
        listed = {graph.file: graph.sha256 for graph in self.graphs}
        return listed if self.trained_on is None else {**listed, self.trained_on.file: self.trained_on.sha256}

    @property
    def has_log_variance(self) -> bool:
        """Whether the encoder returns a log-variance beside the mean. An autoencoder's does not."""
        outputs = [tensor for graph in self.graphs if graph.role == "encoder" for tensor in graph.outputs]
        return any(tensor.name == "log_variance" for tensor in outputs)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions in which both graphs exist, in the order of `PRECISIONS`."""
        pairs = {(graph.role, graph.precision) for graph in self.graphs}
        return tuple(p for p in PRECISIONS if all((role, p) in pairs for role in ROLES))

    def to_json(self) -> str:
        """Return the manifest as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Parse a manifest.

        Raises:
            BundleError: The text is not a manifest, or has a newer schema. The message names the key.
        """
        value = parse_object(text, "manifest")
        schema_version = value.get("schema_version")
        if type(schema_version) is not int or schema_version < 1:
            raise BundleError(
                f"manifest schema_version is {repr(schema_version)[:80]}, not a positive integer"
            )
        if schema_version > SCHEMA_VERSION:
            raise BundleError(
                f"manifest has schema version {schema_version}, but this program reads versions up to"
                f" {SCHEMA_VERSION}: upgrade convvae"
            )
        return decode_record(cls, value, "manifest")
