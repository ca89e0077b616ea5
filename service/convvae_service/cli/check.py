"""The command `convvae-serve check`: a verdict on each version of a model repository."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from convvae.program.exit_codes import ExitCode
from convvae_service.bundle import BundleError
from convvae_service.cli.output import fail, print_line
from convvae_service.errors import StartupError
from convvae_service.observability.logs import flush_logs, set_up_logging
from convvae_service.repository.catalog import nothing_published
from convvae_service.repository.check import Finding, check_repository
from convvae_service.repository.trial import DEFAULT_LIMITS, LoadLimits

__all__ = ["check"]


def check(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Check this model repository.")],
    load_timeout_s: Annotated[
        float, typer.Option(metavar="SECONDS", help="Load a version in at most this time.")
    ] = DEFAULT_LIMITS.timeout_s,
    max_load_bytes: Annotated[
        int,
        typer.Option(
            metavar="BYTES", help="Let the process that loads a version have at most this much memory."
        ),
    ] = DEFAULT_LIMITS.max_bytes,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Verify every version of a model repository: one line each. The exit code is 1 if one is unsound.

    Example: convvae-serve check models
    """
    try:
        limits = LoadLimits(timeout_s=load_timeout_s, max_bytes=max_load_bytes)
    except ValueError as error:
        fail(f"--load-timeout-s and --max-load-bytes: {error}")
    set_up_logging(form="text", level="warning")
    findings: list[Finding] = []
    try:
        for finding in check_repository(root, limits):
            findings.append(finding)
            if not as_json:
                print_line(_verdict(finding))
    except (BundleError, StartupError) as error:
        flush_logs()
        fail(str(error))
    flush_logs()
    if not findings:
        fail(nothing_published(root))
    if as_json:
        print_line(json.dumps({"versions": [asdict(finding) for finding in findings]}, indent=2))
    unsound = any(finding.error for finding in findings)
    if unsound:
        sys.stderr.write("Copy unsound versions again (cp -RL if they have links) or remove their folders.\n")
    raise typer.Exit(ExitCode.FAILED if unsound else ExitCode.DONE)


def _verdict(finding: Finding) -> str:
    verdict = f"UNSOUND  {finding.error}" if finding.error else f"ok  {finding.summary}"
    return f"{finding.model}@{finding.version}  {verdict}"
