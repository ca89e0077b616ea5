"""The manifest of a bundle: what a model version is, as data.

A manifest is one JSON object. Its keys are the fields of `Manifest`, nested objects those of the other
classes here. A key that this version does not know is an error: a format with new keys has a new
`schema_version`, and every reader can say so.
"""

import dataclasses
import json
import math
import re
import types
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = [
    "CAPABILITIES",
    "OBJECTIVES",
    "PRECISIONS",
    "SCHEMA_VERSION",
    "BundleError",
    "Graph",
    "ImageShape",
    "LikelihoodSpec",
    "Manifest",
    "Parity",
    "Precision",
    "Resize",
    "Role",
    "TensorSpec",
    "Training",
    "check_model_name",
    "expected_tensors",
]

SCHEMA_VERSION = 1
OBJECTIVES = ("ae", "vae", "vae-disl", "vae-gan")
CAPABILITIES = ("encode", "decode", "sample", "reconstruct", "score")
LIKELIHOODS = ("bernoulli", "gaussian", "discretised-logistic")

# A health service name of the server, so no model may have it.
RESERVED_NAMES = frozenset({"liveness"})
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Role = Literal["encoder", "decoder"]
Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
T = TypeVar("T")


class BundleError(ValueError):
    """A bundle cannot be used; the message says which part, and what is wrong with it."""


def check_model_name(name: str) -> str:
    """Return `name` if a model may have it.

    Raises:
        BundleError: `name` is reserved, or not 1 to 64 letters, digits, dots, dashes and underscores.
    """
    if not MODEL_NAME.fullmatch(name):
        raise BundleError(
            f"{name!r} is no model name: use 1 to 64 letters, digits, '.', '-', '_', a letter or digit first"
        )
    if name in RESERVED_NAMES:
        raise BundleError(f"{name!r} is reserved for the health service: choose another model name")
    return name


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageShape:
    """Size of an image in pixels and its channels: 1 (grey) or 3 (RGB)."""

    height: int
    width: int
    channels: int

    def __post_init__(self) -> None:
        if not (1 <= self.height <= 4096 and 1 <= self.width <= 4096):
            raise BundleError(f"image size {self.height}x{self.width} is not within 1 to 4096 pixels a side")
        if self.channels not in (1, 3):
            raise BundleError(f"image.channels is {self.channels}: 1 (grey) or 3 (RGB)")

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.channels}"

    @property
    def num_values(self) -> int:
        """Values in one image, which is also its bytes as uint8."""
        return self.height * self.width * self.channels

    @property
    def as_tuple(self) -> tuple[int, int, int]:
        """(height, width, channels), the shape of one image's array."""
        return (self.height, self.width, self.channels)


@dataclass(frozen=True, kw_only=True, slots=True)
class LikelihoodSpec:
    """The decoder's distribution over one image, and the constants that make it a density.

    `probability_clamp` (Bernoulli): probabilities are clamped to [c, 1 - c].
    `sigma` (Gaussian): standard deviation of a pixel in 0..1. `scale` (discretised logistic): the same unit.
    """

    name: str
    probability_clamp: float | None = None
    sigma: float | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        constants = {"bernoulli": "probability_clamp", "gaussian": "sigma", "discretised-logistic": "scale"}
        if self.name not in constants:
            raise BundleError(f"likelihood.name is {self.name!r}: one of {', '.join(LIKELIHOODS)}")
        for owner, constant in constants.items():
            value = getattr(self, constant)
            if owner != self.name and value is not None:
                raise BundleError(f"likelihood.{constant} does not belong to {self.name!r}")
            if owner == self.name and (value is None or not math.isfinite(value) or value <= 0):
                raise BundleError(f"likelihood.{constant} of {self.name!r} must be above 0, not {value}")
        if self.probability_clamp is not None and self.probability_clamp >= 0.5:
            raise BundleError("likelihood.probability_clamp must be below 0.5")


@dataclass(frozen=True, kw_only=True, slots=True)
class Resize:
    """How a picture of another size becomes the model's input.

    `mode`: `crop` scales until the target is covered and keeps the centre; `stretch` ignores the aspect
    ratio. `filter`: a Pillow resampling filter. `library` names the version that resized in training.
    """

    mode: Literal["crop", "stretch"] = "crop"
    filter: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bicubic"
    library: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """An input or output of a graph. `shape` has names for axes of any size."""

    name: str
    dtype: Literal["uint8", "float32"]
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """One ONNX file of the bundle. `sha256` detects damage; it is no proof of who made the file."""

    role: Role
    precision: Precision
    file: str
    sha256: str
    bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.file):
            raise BundleError(
                f"graph file {self.file!r} is not a plain file name within the version's folder"
            )
        if self.bytes < 1:
            raise BundleError(f"{self.file} is said to have {self.bytes} bytes")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise BundleError(f"sha256 of {self.file} is not 64 lower-case hexadecimal digits")


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """Largest absolute differences seen between ONNX Runtime and PyTorch at export.

    `image_steps` counts steps of 255; the others are in the tensor's unit. `log_variance` is null for `ae`.
    """

    batches: tuple[int, ...]
    mean: float
    log_variance: float | None
    image_steps: int
    pixel_mean: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """Where the weights come from. `images` counts training images; metrics are named with their unit."""

    dataset: str
    images: int
    epochs: float
    seed: int
    commit: str
    date: str = ""
    libraries: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Everything that a reader must know of a model version before it opens a graph."""

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
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_model_name(self.model)
        if self.objective not in OBJECTIVES:
            raise BundleError(f"objective is {self.objective!r}: one of {', '.join(OBJECTIVES)}")
        if not 1 <= self.latent_dim <= 65536:
            raise BundleError(f"latent_dim is {self.latent_dim}: 1 to 65536")
        if unknown := set(self.capabilities) - set(CAPABILITIES):
            raise BundleError(f"unknown capabilities {sorted(unknown)}: known are {', '.join(CAPABILITIES)}")
        if self.objective == "ae" and not {"sample", "score"}.isdisjoint(self.capabilities):
            raise BundleError("an ae has neither prior nor rate: it can neither sample nor score")
        seen: set[tuple[str, str]] = set()
        for graph in self.graphs:
            key = (graph.role, graph.precision)
            if key in seen:
                raise BundleError(f"two {graph.precision} {graph.role} graphs: one of each precision at most")
            seen.add(key)
            inputs, outputs = expected_tensors(
                graph.role, image=self.image, latent_dim=self.latent_dim, objective=self.objective
            )
            if graph.inputs != inputs or graph.outputs != outputs:
                raise BundleError(
                    f"inputs or outputs of {graph.file} do not follow from image and latent_dim"
                )
        for role in get_args(Role):
            if not any(graph.role == role for graph in self.graphs):
                raise BundleError(f"no {role} graph is listed")

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions for which both graphs exist, in the order of `PRECISIONS`."""
        roles = {(graph.role, graph.precision) for graph in self.graphs}
        return tuple(p for p in PRECISIONS if ("encoder", p) in roles and ("decoder", p) in roles)

    def to_json(self) -> str:
        """Return the manifest as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a manifest.

        Raises:
            BundleError: The text is no manifest, or one of a newer schema; the message names the key.
        """
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"manifest is not valid JSON: {error}") from None
        if not isinstance(value, dict):
            raise BundleError("manifest is not a JSON object")
        schema_version = value.get("schema_version")
        if type(schema_version) is not int or schema_version < 1:
            raise BundleError(f"manifest schema_version is {schema_version!r}, not a positive integer")
        if schema_version > SCHEMA_VERSION:
            raise BundleError(
                f"manifest has schema version {schema_version}, this program reads up to {SCHEMA_VERSION}:"
                " upgrade convvae"
            )
        return _decode(cls, value, "manifest")


def expected_tensors(
    role: Role, *, image: ImageShape, latent_dim: int, objective: str
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the (inputs, outputs) that a graph of this role has in every bundle."""
    latent = ("batch", latent_dim)
    pixels = ("batch", *image.as_tuple)
    if role == "encoder":
        mean = TensorSpec(name="mean", dtype="float32", shape=latent)
        log_variance = TensorSpec(name="log_variance", dtype="float32", shape=latent)
        outputs = (mean,) if objective == "ae" else (mean, log_variance)
        return (TensorSpec(name="image", dtype="uint8", shape=pixels),), outputs
    return (
        (TensorSpec(name="latent", dtype="float32", shape=latent),),
        (
            TensorSpec(name="image", dtype="uint8", shape=pixels),
            TensorSpec(name="pixel_mean", dtype="float32", shape=pixels),
        ),
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _decode(kind: type[T], value: Any, where: str) -> T:
    """Build the dataclass `kind` from parsed JSON, checking keys and types; messages open with `where`."""
    if not isinstance(value, dict):
        raise BundleError(f"{where} is not a JSON object")
    hints = get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(value) - set(fields)):
        raise BundleError(f"{where} has the unknown key {unknown[0]!r}")
    arguments = {}
    for name, spec in fields.items():
        if name in value:
            arguments[name] = _decode_value(hints[name], value[name], f"{where}.{name}")
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise BundleError(f"{where} lacks the key {name!r}")
    return kind(**arguments)


def _decode_value(hint: Any, value: Any, where: str) -> Any:
    """Check `value` against the type `hint`; lists become tuples, objects become dataclasses."""
    origin = get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise BundleError(f"{where} is not a list")
        return tuple(_decode_value(get_args(hint)[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise BundleError(f"{where} is not a JSON object")
        return {k: _decode_value(get_args(hint)[1], v, f"{where}.{k}") for k, v in value.items()}
    if origin is Literal:
        if value not in get_args(hint):
            raise BundleError(f"{where} is {value!r}: one of {', '.join(map(str, get_args(hint)))}")
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _decode(hint, value, where)
    if hint is Any:
        return value
    accepted = get_args(hint) if origin in (types.UnionType, Union) else (hint,)
    if float in accepted and type(value) is int:
        return float(value)
    if type(value) not in accepted or (isinstance(value, float) and not math.isfinite(value)):
        names = " or ".join("null" if t is types.NoneType else t.__name__ for t in accepted)
        raise BundleError(f"{where} is {value!r}, not {names}")
    return value
