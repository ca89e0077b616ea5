"""A command-line program: its options `-h`, `--version` and completion, its commands, and how it ends."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from convvae.program.exit_codes import MEANINGS, ExitCode
from convvae.program.help_page import help_page
from convvae.program.usage import ParserError, wrong_usage
from convvae.version import distribution_version

__all__ = ["Program"]


class _Command(TyperCommand):
    """A command whose help is plain text."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(help_page(self, ctx, exit_codes={}))


class _Group(TyperGroup):
    """The commands of a program."""

    exit_codes: dict[str, str]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(help_page(self, ctx, exit_codes=self.exit_codes))


class Program(typer.Typer):
    """The commands of one program, in the manner of all of them.

    Args:
        name: The name of the program.
        help: One sentence on its purpose, and an example as a paragraph of its own.
        without_codes: The exit codes that the program never has.
        say: The function that prints the version.
    """

    def __init__(
        self,
        name: str,
        *,
        help: str,  # noqa: A002 - the word of typer
        without_codes: Sequence[int] = (),
        say: Callable[[str], None] = typer.echo,
    ) -> None:
        codes = {
            code: text for code, text in MEANINGS.items() if code not in map(str, map(int, without_codes))
        }
        super().__init__(
            name=name,
            cls=type("_ProgramGroup", (_Group,), {"exit_codes": codes}),
            help=help,
            no_args_is_help=True,
            pretty_exceptions_enable=False,
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        self._name = name

        def print_version(value: bool) -> None:
            if value:
                say(f"{name} {distribution_version()}")
                raise typer.Exit

        @self.callback()
        def options(
            version: Annotated[
                bool,
                typer.Option("--version", callback=print_version, is_eager=True, help="Print the version."),
            ] = False,
        ) -> None:
            del version

    def command(  # type: ignore[override]
        self, *args: Any, **options: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Add a command, as `typer.Typer.command` does. Its help is plain text."""
        return super().command(*args, **{"cls": _Command, **options})

    def run(self, words: Sequence[str]) -> int:
        """Run a command line and return its exit code.

        Raises:
            WrongUsage: The command line is wrong.
        """
        try:
            code = self(args=list(words), prog_name=self._name, standalone_mode=False)
        except ParserError as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                typer.echo(error.format_message(), err=True)  # type: ignore[attr-defined]
                return int(ExitCode.REFUSED)
            raise wrong_usage(error, words) from None
        return code if isinstance(code, int) else int(ExitCode.DONE)
