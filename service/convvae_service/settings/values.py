"""The types of settings that need their own checks: addresses, the device, and lists of words."""

import re
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, ValidationInfo
from pydantic_settings import NoDecode

from convvae_service.bundle import BundleError, check_model_name
from convvae_service.engine.device_name import is_device_name
from convvae_service.settings.addresses import check_address, check_addresses, check_socket_mode
from convvae_service.settings.precision_policy import parse_precision_policies
from convvae_service.settings.version_policy import parse_version_policies

__all__ = [
    "Addresses",
    "Device",
    "MetricsAddress",
    "NewModelName",
    "PinnedVersions",
    "PrecisionWords",
    "SocketMode",
    "VersionWords",
]

# Words of lists, for the message about a value that is no list.
_EXAMPLES = {"address": "127.0.0.1:50051", "precision": "mnist=int8"}


def _check_metrics_address(value: str) -> str:
    return value if value == "off" else check_address(value)


def _check_device(value: str) -> str:
    if not is_device_name(value):
        raise ValueError(f"{value!r} is not auto, cpu, cuda or cuda:N")
    return value


def _check_model_name(value: str) -> str:
    try:
        return value and check_model_name(value)
    except BundleError as error:
        raise ValueError(str(error)) from None


def _split_words(value: object, info: ValidationInfo) -> object:
    """Split `a,b` into words, since variables and flags may hold several."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, dict):
        example = _EXAMPLES.get(info.field_name or "", "mnist=2")
        raise ValueError(f'must be a list, as in {info.field_name} = ["{example}"]')
    return value


def _check_pinned_versions(words: tuple[str, ...]) -> tuple[str, ...]:
    for word in words:
        if not re.fullmatch(r"[^=]+=[1-9][0-9]{0,17}", word):
            raise ValueError(f"{word!r} is not MODEL=VERSION, as in mnist=2")
    names = [word.partition("=")[0] for word in words]
    if len(set(names)) != len(names):
        raise ValueError("a model is named twice: give one version per model")
    return words


def _check_version_words(words: tuple[str, ...]) -> tuple[str, ...]:
    parse_version_policies(words)
    return words


def _check_precision_words(words: tuple[str, ...]) -> tuple[str, ...]:
    parse_precision_policies(words)
    return words


MetricsAddress: TypeAlias = Annotated[str, AfterValidator(_check_metrics_address)]
Device: TypeAlias = Annotated[str, AfterValidator(_check_device)]
NewModelName: TypeAlias = Annotated[str, AfterValidator(_check_model_name)]
SocketMode: TypeAlias = Annotated[str, AfterValidator(check_socket_mode)]
_Words: TypeAlias = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_words)]
Addresses: TypeAlias = Annotated[_Words, AfterValidator(check_addresses)]
PinnedVersions: TypeAlias = Annotated[_Words, AfterValidator(_check_pinned_versions)]
VersionWords: TypeAlias = Annotated[_Words, AfterValidator(_check_version_words)]
PrecisionWords: TypeAlias = Annotated[_Words, AfterValidator(_check_precision_words)]
