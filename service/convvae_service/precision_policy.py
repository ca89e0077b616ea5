"""Which precision of a model's graphs runs: one for every model, and others for some."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from convvae_service.manifest import PRECISIONS, Precision

__all__ = ["PrecisionPolicies", "parse_precisions"]

_WORD = re.compile(rf"(?:(?P<model>[^=]+)=)?(?P<precision>auto|{'|'.join(PRECISIONS)})")


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
        match = _WORD.fullmatch(word)
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
