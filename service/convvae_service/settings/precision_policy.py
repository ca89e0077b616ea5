"""The precision of the graphs that the server runs for each model."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from convvae_service.bundle import PRECISIONS, Precision

__all__ = ["PrecisionPolicies", "parse_precision_policies"]

_WORD = re.compile(rf"(?:(?P<model>[^=]+)=)?(?P<precision>auto|{'|'.join(PRECISIONS)})")


@dataclass(frozen=True, slots=True)
class PrecisionPolicies:
    """A default precision, and the precisions of single models.

    None takes fp32 if the bundle has it, otherwise the bundle's first precision.
    """

    default: Precision | None = None
    by_model: Mapping[str, Precision | None] = field(default_factory=dict)

    def of(self, model: str) -> Precision | None:
        """Return the precision of `model`."""
        return self.by_model.get(model, self.default)


def parse_precision_policies(words: Iterable[str]) -> PrecisionPolicies:
    """Parse words such as `auto`, `fp16` and `mnist=int8`.

    A word with a model applies to that model, a word without one to all other models.

    Raises:
        ValueError: A word has none of these forms, or is the second for the same model.
    """
    known: dict[str, Precision] = {precision: precision for precision in PRECISIONS}
    policies: dict[str, Precision | None] = {}
    for word in words:
        match = _WORD.fullmatch(word)
        if match is None:
            raise ValueError(
                f"{word!r} is not auto, {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, nor MODEL= followed"
                " by one of these, as in mnist=int8"
            )
        model = match["model"] or ""
        if model in policies:
            raise ValueError(f"{word!r} is a second word for {model or 'all models'}: give only one")
        policies[model] = known.get(match["precision"])
    return PrecisionPolicies(policies.pop("", None), policies)
