"""The versions of each model that the server loads."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["VersionPolicies", "VersionPolicy", "parse_version_policies"]

_WORD = re.compile(
    r"(?:(?P<model>[^=]+)=)?(?:latest:(?P<latest>[1-9]\d{0,5})|(?P<all>all)|(?P<version>[1-9]\d{0,17}))"
)


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """The rule that selects versions of one model.

    Attributes:
        latest: Number of the newest usable versions to load. None loads all.
        listed: The only versions to consider. Empty considers every published version.
    """

    latest: int | None = 1
    listed: frozenset[int] = frozenset()

    def candidates(self, published: Iterable[int]) -> list[int]:
        """Return the versions to consider, the newest first."""
        return sorted((v for v in published if not self.listed or v in self.listed), reverse=True)


@dataclass(frozen=True, slots=True)
class VersionPolicies:
    """A default policy, and the policies of single models."""

    default: VersionPolicy = VersionPolicy()
    by_model: Mapping[str, VersionPolicy] = field(default_factory=dict)

    def of(self, model: str) -> VersionPolicy:
        """Return the policy of `model`."""
        return self.by_model.get(model, self.default)


def parse_version_policies(words: Iterable[str]) -> VersionPolicies:
    """Parse words such as `latest:2`, `all`, `3`, `mnist=all` and `mnist=3`.

    A word with a model applies to that model, a word without one to all other models. Several versions add
    up to a list.

    Raises:
        ValueError: A word has none of these forms, or contradicts another word.
    """
    policies: dict[str, VersionPolicy] = {}
    for word in words:
        match = _WORD.fullmatch(word)
        if match is None:
            raise ValueError(
                f"{word!r} is not latest:N, all or VERSION, nor MODEL= followed by one of these,"
                " as in mnist=latest:2"
            )
        model, version = match["model"] or "", match["version"]
        earlier = policies.get(model)
        if earlier and not (version and earlier.listed):
            raise ValueError(f"{word!r} contradicts an earlier word for {model or 'all models'}")
        if version:
            listed = earlier.listed if earlier else frozenset()
            policies[model] = VersionPolicy(None, listed | {int(version)})
        else:
            policies[model] = VersionPolicy(int(match["latest"]) if match["latest"] else None)
    default = policies.pop("", VersionPolicy())
    return VersionPolicies(default, policies)
