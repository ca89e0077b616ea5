"""The tables of settings in a page of the documents: they stand between two comments, and are made anew."""

from pathlib import Path

__all__ = ["BEGIN", "END", "with_tables", "write_tables"]

BEGIN = "<!-- settings:begin -->"
END = "<!-- settings:end -->"


def with_tables(page: str, tables: str) -> str:
    """Return the page with the tables between its two comments.

    Raises:
        ValueError: The page lacks one of the comments.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the comments {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{tables}{END}{after}"


def write_tables(path: Path, tables: str) -> None:
    """Write the tables into the page at `path`, as `with_tables` does."""
    path.write_text(with_tables(path.read_text(encoding="utf-8"), tables), encoding="utf-8")
