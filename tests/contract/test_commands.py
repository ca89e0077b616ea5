"""Every command in the documents is one of the programs, with flags that it has."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer.main

from convvae.cli.app import app as client
from convvae_service.pipeline.cli import app as pipeline
from convvae_service.settings.serve import ServeSettings
from convvae_trainer.cli.app import app as trainer

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/*/results/*.md")])
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PROGRAMS = {"convvae": client, "convvae-embed": pipeline, "convvae-train": trainer}


def blocks(text: str) -> Iterator[str]:
    """Yield the lines of a document's shell blocks and indented blocks, with continued lines joined."""
    text = re.sub(r"\\\n\s*", "", text)
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.splitlines()
    yield from re.findall(
        r"^ {4,}(\S.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.M
    )


COMMANDS = sorted(
    {
        (str(document.relative_to(ROOT)), command)
        for document in DOCUMENTS
        for line in blocks(document.read_text())
        if (command := re.sub(r"( {2,}|\s#|\s&$).*", "", re.sub(r" {2,}(?=--)", " ", line)).strip())
        and re.match(r"(make|convvae[a-z-]*|python tests/\S+|torchrun .*convvae_trainer) ?", command)
    }
)


def flags_of(program: str, words: list[str]) -> set[str]:
    """Return the flags that a program accepts for the subcommand that `words` begin with."""
    command: Any = typer.main.get_command(PROGRAMS[program])
    assert words[0] in command.commands, f"{program} has no command {words[0]}"
    parameters = [*command.params, *command.commands[words[0]].params]
    return {option for parameter in parameters for option in parameter.opts + parameter.secondary_opts}


def server_flags() -> set[str]:
    """Return the flags of `convvae-serve run`."""
    names = [name.replace("_", "-") for name in ServeSettings.model_fields]
    return {f"--{prefix}{name}" for name in names for prefix in ("", "no-")} | {"--config", "--help"}


def test_there_are_commands() -> None:
    """The checks below are not blind: all programs appear in the documents."""
    assert len(COMMANDS) > 40
    assert {command.split()[0] for _, command in COMMANDS} >= {"make", "convvae-serve", *PROGRAMS}


@pytest.mark.parametrize(("document", "command"), COMMANDS)
def test_commands_of_the_documents_exist(document: str, command: str) -> None:
    """Targets of make, subcommands and flags exist, and so do the files that Python runs."""
    program, *words = shlex.split(command)
    if program == "make":
        named = [word for word in words if "=" not in word]
        assert set(named) <= TARGETS, named
    elif program == "python":
        assert (ROOT / words[0]).is_file()
    else:
        if program == "torchrun":
            program, words = "convvae-train", words[words.index("convvae_trainer") + 1 :]
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        accepted = server_flags() if program == "convvae-serve" else flags_of(program, words) | {"--help"}
        assert given <= accepted, given - accepted


@pytest.mark.parametrize(
    ("module", "program"),
    [
        ("convvae", "convvae"),
        ("convvae_trainer", "convvae-train"),
        ("convvae_service", "convvae-serve"),
        ("convvae_service.pipeline", "convvae-embed"),
    ],
)
def test_programs_have_one_manner(module: str, program: str) -> None:
    """`-h` and `--help` print the help, with the exit codes; `--version` prints name and version."""
    outputs = {}
    for flag in ("-h", "--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-m", module, flag], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, ""), flag
        outputs[flag] = done.stdout
    assert outputs["-h"] == outputs["--help"]
    assert "exit codes:" in outputs["-h"].lower()
    assert outputs["--version"] == f"{program} {metadata.version('convvae')}\n"


def test_a_target_takes_one_time_wherever_it_is_stated() -> None:
    """The minutes that a document or the Makefile gives for a long target are those of CONTRIBUTING.md."""
    times: dict[str, str] = {}
    minutes = None
    for line in (ROOT / "Makefile").read_text().splitlines():
        if comment := re.match(r"#.*\bAbout (\d+) minutes", line):
            minutes = comment[1]
        elif (target := re.match(r"([a-z-]+):", line)) and minutes is not None:
            times[target[1]], minutes = minutes, None
    assert set(times) == {"bench", "fault", "attack"}
    for document in DOCUMENTS:
        text = document.read_text()
        stated = re.findall(r"^ {4}make ([a-z-]+) +# about (\S+) minutes", text, re.MULTILINE)
        stated += re.findall(r"^\| `make ([a-z-]+)` \|.*\| (\S+) minutes.*\|$", text, re.MULTILINE)
        assert [(target, times[target]) for target, _ in stated if target in times] == [
            pair for pair in stated if pair[0] in times
        ], document
