"""Which versions of a model are loaded, and which precision of its graphs runs."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from convvae_service.bundle import PRECISIONS, Precision

__all__ = ["PrecisionPolicies", "VersionPolicies", "VersionPolicy", "parse_policies", "parse_precisions"]

_VERSION_WORD = re.compile(
    r"(?:(?P<model>[^=]+)=)?(?:latest:(?P<latest>[1-9]\d{0,5})|(?P<all>all)|(?P<version>[1-9]\d{0,17}))"
)

_PRECISION_WORD = re.compile(rf"(?:(?P<model>[^=]+)=)?(?P<precision>auto|{'|'.join(PRECISIONS)})")


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """The `latest` newest usable versions; None stands for all. Where versions are `listed`, only those."""

    latest: int | None = 1
    listed: frozenset[int] = frozenset()

    def candidates(self, published: Iterable[int]) -> list[int]:
        """Return the versions to consider, the newest first."""
        return sorted((v for v in published if not self.listed or v in self.listed), reverse=True)


@dataclass(frozen=True, slots=True)
class VersionPolicies:
    """A policy for every model, and others for some."""

    default: VersionPolicy = VersionPolicy()
    by_model: Mapping[str, VersionPolicy] = field(default_factory=dict)

    def of(self, model: str) -> VersionPolicy:
        """Return the policy of `model`."""
        return self.by_model.get(model, self.default)


def parse_policies(words: Iterable[str]) -> VersionPolicies:
    """Return what words such as `latest:2`, `all`, `3`, `mnist=all` and `mnist=3` say together.

    A word with a model is for that model, one without for all the others. Versions add up to a list.

    Raises:
        ValueError: A word has none of these forms, or contradicts another.
    """
    policies: dict[str, VersionPolicy] = {}
    for word in words:
        match = _VERSION_WORD.fullmatch(word)
        if match is None:
            raise ValueError(
                f"{word!r} is none of latest:N, all and VERSION, nor MODEL= and one of these,"
                " as in mnist=latest:2"
            )
        model, version = match["model"] or "", match["version"]
        earlier = policies.get(model)
        if earlier and not (version and earlier.listed):
            raise ValueError(f"{word!r} contradicts the word before it for {model or 'all models'}")
        if version:
            listed = earlier.listed if earlier else frozenset()
            policies[model] = VersionPolicy(None, listed | {int(version)})
        else:
            policies[model] = VersionPolicy(int(match["latest"]) if match["latest"] else None)
    default = policies.pop("", VersionPolicy())
    return VersionPolicies(default, policies)


@dataclass(frozen=True, slots=True)
class PrecisionPolicies:
    """A precision for every model, and others for some. None is fp32, or else the first that a bundle has."""

    default: Precision | None = None
    by_model: Mapping[str, Precision | None] = field(default_factory=dict)

    def of(self, model: str) -> Precision | None:
        """Return the precision of `model`."""
        return self.by_model.get(model, self.default)


def parse_precisions(words: Iterable[str]) -> PrecisionPolicies:
    """Return what words such as `auto`, `fp16` and `mnist=int8` say together.

    A word with a model is for that model, one without for all the others.

    Raises:
        ValueError: A word has none of these forms, or a second one is for the same models.
    """
    named: dict[str, Precision] = {precision: precision for precision in PRECISIONS}
    policies: dict[str, Precision | None] = {}
    for word in words:
        match = _PRECISION_WORD.fullmatch(word)
        if match is None:
            raise ValueError(
                f"{word!r} is none of auto, {', '.join(PRECISIONS)}, nor MODEL= and one of these,"
                " as in mnist=int8"
            )
        model = match["model"] or ""
        if model in policies:
            raise ValueError(f"{word!r} is a second word for {model or 'all models'}: give one")
        policies[model] = named.get(match["precision"])
    return PrecisionPolicies(policies.pop("", None), policies)
