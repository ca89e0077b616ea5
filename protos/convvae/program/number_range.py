"""The allowed numbers of an option in words."""

from collections.abc import Callable

__all__ = ["number_range"]


def number_range(
    low: float | None,
    high: float | None,
    *,
    with_low: bool = True,
    text: Callable[[float], str] = str,
) -> str:
    """Return the allowed numbers in words, such as `1 to 64`, or "" if all are allowed.

    Args:
        low: The least number, None without a limit.
        high: The greatest number, which is allowed too; None without a limit.
        with_low: Whether the least number itself is allowed.
        text: Returns a number as text.
    """
    if low is None:
        return "" if high is None else f"at most {text(high)}"
    if not with_low:
        above = f"more than {text(low)}"
        return above if high is None else f"{above}, at most {text(high)}"
    return f"{text(low)} or more" if high is None else f"{text(low)} to {text(high)}"
