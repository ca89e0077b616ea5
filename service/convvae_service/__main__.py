"""The command `convvae-serve`."""

import os
import sys
from collections.abc import Sequence

# The rest is imported when it is used. A signal during these imports ends the process with one line.
from convvae.program.exit_codes import ExitCode, stopped_by
from convvae.program.streams import close_standard_streams, open_standard_streams
from convvae_service.server.early_signals import end_on_signals

__all__ = ["main"]

_HELP = {"-h", "--help"}
# Flags of the program that print something and end.
_NO_SERVER = _HELP | {"--version", "--install-completion", "--show-completion"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line and exit with its code. None takes the arguments of the process."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0].startswith("-") and words[0] not in _NO_SERVER and _HELP & set(words):
        # Help between the settings of a server is about these.
        words.insert(0, "run")
    if words[:1] == ["check"]:
        end_on_signals("error: not every version was checked: stopped by", stopped_by)
    else:
        end_on_signals("stopped during the start by", lambda _: int(ExitCode.DONE))
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
        from convvae_service.cli.output import fail

        fail(f"{error.name} is not installed: pip install 'convvae[service,gpu]' or 'convvae[service,cpu]'")
    if _starts_server(words):
        from convvae_service.cli.serve import serve

        serve(words[1:] if words[:1] == ["run"] else words)
    from convvae.program.usage import WrongUsage
    from convvae_service.cli.app import app
    from convvae_service.cli.output import fail

    try:
        sys.exit(app.run(words))
    except WrongUsage as error:
        fail(str(error))


def _starts_server(words: list[str]) -> bool:
    """Return whether a command line is that of a server, which starts without the parser of the help."""
    if "_CONVVAE_SERVE_COMPLETE" in os.environ:
        return False
    if words[:1] == ["run"]:
        return not _HELP & set(words)
    return not words or (words[0].startswith("-") and words[0] not in _NO_SERVER)


if __name__ == "__main__":
    main()
