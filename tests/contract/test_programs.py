"""The four programs have one manner: help, wrong command lines, exit codes, JSON and completion."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from convvae.cli.app import app as client
from convvae.program.app import Program
from convvae.program.exit_codes import MEANINGS
from convvae.program.usage import WrongUsage
from convvae_service.cli.app import app as server
from convvae_service.pipeline.cli import app as pipeline
from convvae_trainer.cli.app import app as trainer

ROOT = Path(__file__).parents[2]
PROGRAMS: dict[str, Program] = {
    "convvae": client,
    "convvae-embed": pipeline,
    "convvae-serve": server,
    "convvae-train": trainer,
}
# Commands without a result to print.
WITHOUT_JSON = {"convvae-serve run"}
# Names of types in Python or in the parser, which no reader of a help knows.
ARTEFACTS = re.compile(
    r"<\w+>|<list|\btuple\b|\bUnion\b|Optional\[|\bNone\b|\[x?[<>]|x<=|\bPOSITIONAL\b|\bARGS\b|\\|\bTEXT\b|\bINTEGER\b"
    r"|PosixPath|…\]|\{\w+\.\.\.\}|typing\.|python -m"
)


def commands_of(program: str) -> dict[str, Any]:
    """Return the commands of a program by name."""
    group: Any = typer.main.get_command(PROGRAMS[program])
    return dict(group.commands)


COMMANDS = [(program, command) for program in PROGRAMS for command in commands_of(program)]
PAGES: list[tuple[str, tuple[str, ...]]] = [(program, ()) for program in PROGRAMS]
PAGES += [(program, (command,)) for program, command in COMMANDS]


def help_of(program: str, *words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the help of a command."""
    assert PROGRAMS[program].run([*words, "-h"]) == 0
    ended = capsys.readouterr()
    assert ended.err == ""
    return ended.out


def examples(page: str) -> Iterator[str]:
    """Yield the command lines of a help, with continued lines joined."""
    page = re.sub(r" \\\n\s+", " ", page)
    yield from re.findall(r"^Example:\n  (.+)$", page, re.MULTILINE)


def test_every_command_is_tested() -> None:
    """The lists below are not blind: they have all commands."""
    assert len(COMMANDS) == 20


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize(("program", "words"), PAGES)
def test_help_fits_and_reads_well(
    program: str,
    words: tuple[str, ...],
    columns: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A help fits its terminal, says what each option does in sentences, and shows no type of Python."""
    monkeypatch.setenv("COLUMNS", str(columns))
    page = help_of(program, *words, capsys=capsys)
    assert page.startswith(f"Usage: {' '.join((program, *words))} [OPTIONS]")
    wide = [line for line in page.splitlines() if len(line) > columns]
    # A command line that is copied is divided only between options.
    assert all(line.startswith("  convvae") for line in wide), wide
    assert columns < 80 or not wide, wide
    prose = re.sub(r"\nExample:\n(  .+\n)+", "\n", page)
    assert not ARTEFACTS.search(prose), ARTEFACTS.search(prose)
    for entry in re.findall(r"^  (\S.*(?:\n {4,}\S.*)*)", prose, re.MULTILINE):
        assert re.search(r"[.)]$", entry), entry


@pytest.mark.parametrize(("program", "words"), PAGES)
def test_help_has_an_example_that_works(
    program: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """The parser takes the example of each command, which is one of this command."""
    lines = list(examples(help_of(program, *words, capsys=capsys)))
    assert len(lines) == 1, lines
    name, *given = shlex.split(lines[0])
    assert name == program
    if given[0].startswith("-"):
        given = ["run", *given]
    if words:
        assert given[0] == words[0]
    command = commands_of(program)[given[0]]
    assert command.make_context(given[0], given[1:]).params


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_has_the_exit_codes(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The help of a program explains each code that it has, in the words of the documents."""
    section = help_of(program, capsys=capsys).partition("Exit codes:\n")[2].partition("\n\n")[0]
    found = {
        row[0]: " ".join(row[1].split())
        for row in re.findall(r"^  (\S+) +((?:.+\n?)(?: {4,}.+\n?)*)", section, re.M)
    }
    expected = {
        code: text
        for code, text in MEANINGS.items()
        if code != "3" or program in ("convvae", "convvae-embed")
    }
    assert found == expected
    document = (ROOT / "docs" / "command-line.md").read_text()
    assert dict(re.findall(r"^\| (\d\S*) \| (.+) \|$", document, re.MULTILINE)) == MEANINGS


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_options_are_alike(program: str, command: str) -> None:
    """--json and --force have one meaning, and every command with a result has --json."""
    options = {name: each for each in commands_of(program)[command].params for name in each.opts}
    has_json = "--json" in options
    assert has_json != (f"{program} {command}" in WITHOUT_JSON)
    if has_json:
        assert options["--json"].help == "Print the result as one JSON object."
    if "--force" in options:
        assert options["--force"].help == "Replace files that exist."


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("convvae encod x", "convvae has no command 'encod': did you mean encode or decode?"),
        ("convvae --verson", "convvae has no option --verson: did you mean --version?"),
        ("convvae encode", "convvae encode needs PATH..."),
        ("convvae encode x", "convvae encode needs --out FILE"),
        ("convvae encode x --ouu z.npy", "convvae encode has no option --ouu: did you mean --out?"),
        ("convvae sample --out x.npy --count many", "--count is 'many': it must be a whole number"),
        ("convvae sample --out x.npy --temperature=hot", "--temperature is 'hot': it must be a number"),
        ("convvae sample --out x.npy --retries -1", "--retries is '-1': it must be 0 or more"),
        ("convvae models here there", "convvae models takes no further words: here there"),
        ("convvae-train fti", "convvae-train has no command 'fti': did you mean fit?"),
        ("convvae-train fit", "convvae-train fit needs --run-dir DIR"),
        (
            "convvae-train fit --run-dir r --epoch 3",
            "convvae-train fit has no option --epoch: did you mean --epochs?",
        ),
        ("convvae-train fit --run-dir r --epochs ten", "--epochs is 'ten': it must be a whole number"),
        ("convvae-train evaluate", "convvae-train evaluate needs RUN_DIR"),
        ("convvae-train quantize m --dataset d --weight-bits 9", "--weight-bits is '9': it must be 7 to 8"),
        (
            "convvae-train quantize m --dataset d --precision x",
            "--precision is 'x': it must be int8, fp16 or both",
        ),
        ("convvae-embed rnu", "convvae-embed has no command 'rnu': did you mean run?"),
        ("convvae-embed run a", "convvae-embed run needs SOURCE... SINK"),
        ("convvae-embed run a b --threads few", "--threads is 'few': it must be a whole number"),
        (
            "convvae-embed map r --out m.png --sede 1",
            "convvae-embed map has no option --sede: did you mean --seed",
        ),
        ("convvae-serve chekc r", "convvae-serve has no command 'chekc': did you mean check?"),
        ("convvae-serve check", "convvae-serve check needs ROOT"),
        ("convvae-serve check r --load-timeout-s soon", "--load-timeout-s is 'soon': it must be a number"),
    ],
)
def test_a_wrong_command_line_is_one_line(line: str, message: str) -> None:
    """The line names what is wrong in the words of the help, and the command whose help to read."""
    program, *words = shlex.split(line)
    with pytest.raises(WrongUsage) as caught:
        PROGRAMS[program].run(words)
    text = str(caught.value)
    assert text.startswith(message)
    assert re.search(rf"; {program}( \w+)? -h explains the command$", text)
    assert "\n" not in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("convvae sample --out", "--out needs a value"),
        ("convvae sample --out x.npy --json=yes", "--json takes no value"),
    ],
)
def test_options_with_and_without_a_value_are_told_apart(line: str, message: str) -> None:
    """An option without its value, and a flag with one, are named."""
    program, *words = shlex.split(line)
    with pytest.raises(WrongUsage, match=f"^{message}"):
        PROGRAMS[program].run(words)


@pytest.mark.parametrize("program", ["convvae", "convvae-embed", "convvae-train"])
def test_no_words_are_the_help(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A program without a command prints its help to standard error, and is refused."""
    assert PROGRAMS[program].run([]) == 2
    ended = capsys.readouterr()
    assert ended.out == ""
    assert ended.err.startswith(f"Usage: {program} [OPTIONS] COMMAND")


@pytest.mark.parametrize(
    ("module", "program", "typed", "found"),
    [
        ("convvae", "convvae", "convvae enc", ["encode"]),
        ("convvae_trainer", "convvae-train", "convvae-train fit --latent", ["--latent-dim"]),
        ("convvae_service", "convvae-serve", "convvae-serve run --max-batch", ["--max-batch-rows"]),
        ("convvae_service.pipeline", "convvae-embed", "convvae-embed run --over", []),
        ("convvae_service.pipeline", "convvae-embed", "convvae-embed ne", ["neighbors"]),
    ],
)
def test_the_shell_completes_words(module: str, program: str, typed: str, found: list[str]) -> None:
    """A shell gets the commands and options that begin as the typed word does."""
    words = typed.split()
    environment = {
        f"_{program.replace('-', '_').upper()}_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": ":".join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-m", module],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == found, done.stderr
