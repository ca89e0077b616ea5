"""Which versions of a model are loaded: the newest, all of them, or those that are listed."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["VersionPolicies", "VersionPolicy", "parse_policies"]

_WORD = re.compile(
    r"(?:(?P<model>[^=]+)=)?(?:latest:(?P<latest>[1-9]\d{0,5})|(?P<all>all)|(?P<version>[1-9]\d{0,17}))"
)


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
        match = _WORD.fullmatch(word)
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
