import pytest

from convvae.program.number_range import number_range


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(1, 64, "1 to 64"), (0, None, "0 or more"), (None, 9.5, "at most 9.5"), (None, None, "")],
)
def test_limits_are_put_into_words(low: float | None, high: float | None, words: str) -> None:
    """Each limit may be missing."""
    assert number_range(low, high) == words


def test_a_least_number_may_itself_be_refused() -> None:
    """A limit that is not allowed itself has other words."""
    assert number_range(0, 60, with_low=False) == "more than 0, at most 60"
    assert number_range(0, None, with_low=False) == "more than 0"


def test_numbers_have_the_text_of_the_caller() -> None:
    """A caller may write its numbers with units."""
    assert number_range(1, 2, text=lambda number: f"{number} MiB") == "1 MiB to 2 MiB"
