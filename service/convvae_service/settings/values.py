"""The types of settings that need their own checks: addresses, the device, and lists of words."""

import re
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, ValidationInfo
from pydantic_settings import NoDecode

from convvae_service.engine.device_name import is_device_name
from convvae_service.settings.precision_policy import parse_precision_policies
from convvae_service.settings.version_policy import parse_version_policies

__all__ = ["Address", "Device", "MetricsAddress", "PinnedVersions", "PrecisionWords", "VersionWords"]


def _check_address(value: str) -> str:
    host, _, port = value.rpartition(":")
    is_number = port.isascii() and port.isdecimal() and int(port) <= 65535
    if not host or host == "unix" or not is_number:
        raise ValueError(f"{value!r} is not HOST:PORT, as in 127.0.0.1:50051")
    if (":" in host or "[" in host) and not re.fullmatch(r"\[[^][]*:[^][]*\]", host):
        raise ValueError(f"{value!r} is not HOST:PORT: an IPv6 address stands in brackets, as in [::1]:50051")
    return value


def _check_metrics_address(value: str) -> str:
    return value if value == "off" else _check_address(value)


def _check_device(value: str) -> str:
    if not is_device_name(value):
        raise ValueError(f"{value!r} is not auto, cpu, cuda or cuda:N")
    return value


def _split_words(value: object, info: ValidationInfo) -> object:
    """Split `a,b` into words, since variables and flags may hold several."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, dict):
        example = "mnist=int8" if info.field_name == "precision" else "mnist=2"
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


Address: TypeAlias = Annotated[str, AfterValidator(_check_address)]
MetricsAddress: TypeAlias = Annotated[str, AfterValidator(_check_metrics_address)]
Device: TypeAlias = Annotated[str, AfterValidator(_check_device)]
_Words: TypeAlias = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_words)]
PinnedVersions: TypeAlias = Annotated[_Words, AfterValidator(_check_pinned_versions)]
VersionWords: TypeAlias = Annotated[_Words, AfterValidator(_check_version_words)]
PrecisionWords: TypeAlias = Annotated[_Words, AfterValidator(_check_precision_words)]
