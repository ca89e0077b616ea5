"""The bundle: a model version on disk, its publication, its verification, and its likelihood."""

from convvae_service.bundle.durable import sync_folder
from convvae_service.bundle.errors import BundleError
from convvae_service.bundle.graphs import (
    PRECISIONS,
    ROLES,
    Graph,
    Precision,
    Role,
    TensorSpec,
    describe_graph,
    expected_tensors,
)
from convvae_service.bundle.likelihood import distortion, rate
from convvae_service.bundle.listing import (
    MANIFEST_FILE,
    folder_names,
    is_version,
    list_models,
    list_versions,
    published_versions,
    reason,
    warn_once,
)
from convvae_service.bundle.manifest import CAPABILITIES, SCHEMA_VERSION, Manifest
from convvae_service.bundle.names import VERSION_NAME, check_model_name
from convvae_service.bundle.publisher import METRICS_FILE, publish
from convvae_service.bundle.reader import Bundle, read_bundle, read_manifest, read_trained_on
from convvae_service.bundle.records import Accuracy, ImageShape, LikelihoodSpec, Parity, Resize, Training
from convvae_service.bundle.references import NoSuchVersion, version_folder
from convvae_service.bundle.trained_on import (
    TRAINED_ON_FILE,
    TrainedOn,
    decode_trained_on,
    encode_trained_on,
)

__all__ = [
    "CAPABILITIES",
    "MANIFEST_FILE",
    "METRICS_FILE",
    "PRECISIONS",
    "ROLES",
    "SCHEMA_VERSION",
    "TRAINED_ON_FILE",
    "VERSION_NAME",
    "Accuracy",
    "Bundle",
    "BundleError",
    "Graph",
    "ImageShape",
    "LikelihoodSpec",
    "Manifest",
    "NoSuchVersion",
    "Parity",
    "Precision",
    "Resize",
    "Role",
    "TensorSpec",
    "TrainedOn",
    "Training",
    "check_model_name",
    "decode_trained_on",
    "describe_graph",
    "distortion",
    "encode_trained_on",
    "expected_tensors",
    "folder_names",
    "is_version",
    "list_models",
    "list_versions",
    "publish",
    "published_versions",
    "rate",
    "read_bundle",
    "read_manifest",
    "read_trained_on",
    "reason",
    "sync_folder",
    "version_folder",
    "warn_once",
]
