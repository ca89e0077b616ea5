"""A table on the terminal."""

import io
from collections.abc import Sequence

from convvae.cli.terminal import printable, say

__all__ = ["print_table"]


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of texts below a title and the names of the columns."""
    # rich takes a while to load, and most commands print no table.
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    # Written at once, by the function that reports a closed output.
    console = Console()
    file = io.StringIO()
    Console(file=file, width=console.width, force_terminal=console.is_terminal).print(table)
    say(file.getvalue().rstrip("\n"))
