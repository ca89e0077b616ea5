"""The command `convvae-serve`."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

# The rest is imported when it is used. A signal during these imports ends the process with one line.
from convvae_service.printable import printable
from convvae_service.server.early_signals import end_on_signals
from convvae_service.server.standard_streams import close_standard_streams, open_standard_streams

__all__ = ["main"]

_USAGE = """\
usage: convvae-serve [run] --models ROOT [options]   serve the models under ROOT over gRPC
       convvae-serve check ROOT                      verify a model repository offline
       convvae-serve run --help                      all options
       convvae-serve --version

exit codes: 0 drained, or every version is sound; 1 stopped by a second signal, or some versions are unsound;
            2 cannot start, wrong arguments, or stdout cannot be written;
            129, 130, 143 a check stopped by SIGHUP, SIGINT, SIGTERM"""


_CHECK_USAGE = "usage: convvae-serve check ROOT [--load-timeout-s SECONDS] [--max-load-bytes BYTES]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line and exit with its code. None takes the arguments of the process."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["check"]:
        end_on_signals("error: not every version was checked: stopped by", lambda number: 128 + number)
    else:
        end_on_signals("stopped during the start by", lambda _: 0)
    open_standard_streams()
    # The log of the service says more than gRPC's own lines. gRPC reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        _run(words)
    except SystemExit as end:
        if _is_loading():
            # ONNX Runtime may abort when the interpreter ends around it.
            close_standard_streams()
            os._exit(end.code if isinstance(end.code, int) else 1)
        raise
    finally:
        close_standard_streams()


def _is_loading() -> bool:
    """Return whether a thread that loads a version has not come back."""
    attempt = sys.modules.get("convvae_service.repository.attempt")
    return attempt is not None and attempt.is_loading()


def _run(words: list[str]) -> None:
    try:
        import convvae_service.settings.loader  # noqa: F401 - find a missing extra here, once
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed: pip install 'convvae[service,gpu]' or 'convvae[service,cpu]'")
    match words:
        case ["--help" | "-h" | "help"]:
            _print(_USAGE)
        case ["--version"]:
            from importlib.metadata import version

            _print(f"convvae-serve {version('convvae')}")
        case ["check", "--help" | "-h"]:
            _print(f"{_CHECK_USAGE}\n\nVerify every version under ROOT; one line each.")
        case ["check", root, *options] if not root.startswith("-"):
            _check(root, options)
        case ["check", *_]:
            _fail(_CHECK_USAGE)
        case ["run", *rest]:
            _serve(rest)
        case [word, *_] if not word.startswith("-"):
            _fail(f"unknown command {word!r}", usage=_USAGE)
        case _:
            _serve(words)


def _serve(words: Sequence[str]) -> None:
    import asyncio
    import warnings

    from convvae_service.errors import StartupError
    from convvae_service.observability.logs import flush_logs, set_up_logging
    from convvae_service.observability.uncaught import log_uncaught
    from convvae_service.settings.loader import load_settings

    # The caller gets an error for a damaged file; the log needs no warning.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        settings = load_settings(words)
        set_up_logging(form=settings.log_format, level=settings.log_level)
        log_uncaught()
        from convvae_service.server.process import run

        try:
            import uvloop
        except ModuleNotFoundError:
            loop_factory = None
        else:
            loop_factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            code = runner.run(run(settings))
        flush_logs()
        # The event loop does not handle signals any more, and the process has not ended yet.
        end_on_signals("second signal: stopped by", lambda _: 1)
        sys.exit(code)
    except StartupError as error:
        flush_logs()
        _fail(str(error))


def _check(root: str, options: Sequence[str]) -> None:
    from pathlib import Path

    from convvae_service.bundle import BundleError
    from convvae_service.errors import StartupError
    from convvae_service.observability.logs import flush_logs, set_up_logging
    from convvae_service.repository.catalog import nothing_published
    from convvae_service.repository.check import check_repository
    from convvae_service.repository.trial import LoadLimits

    kinds = {"--load-timeout-s": ("timeout_s", float), "--max-load-bytes": ("max_bytes", int)}
    values = {}
    try:
        for name, text in zip(options[::2], options[1::2], strict=True):
            field, kind = kinds[name]
            values[field] = kind(text)
        limits = LoadLimits(**values)
    except (KeyError, ValueError, OverflowError):
        _fail(_CHECK_USAGE)
    set_up_logging(form="text", level="warning")
    checked = unsound = 0
    try:
        for finding in check_repository(Path(root), limits):
            checked += 1
            unsound += bool(finding.error)
            verdict = f"UNSOUND  {finding.error}" if finding.error else f"ok  {finding.summary}"
            _print(f"{finding.model}@{finding.version}  {verdict}")
    except (BundleError, StartupError) as error:
        flush_logs()
        _fail(str(error))
    flush_logs()
    if unsound:
        print(
            "Copy unsound versions again (cp -RL if they have links) or remove their folders.",
            file=sys.stderr,
        )
    if not checked:
        _fail(nothing_published(Path(root)))
    sys.exit(1 if unsound else 0)


def _print(text: str) -> None:
    """Print to stdout at once. A pipe without a reader, or a full disk, is an error."""
    try:
        print(text, flush=True)
    except OSError as error:
        _fail(f"stdout cannot be written: {error.strerror}: the output is not complete")


def _fail(message: str, *, usage: str = "") -> NoReturn:
    with suppress(OSError):
        print(f"error: {printable(message)}\n{usage}".rstrip(), file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
