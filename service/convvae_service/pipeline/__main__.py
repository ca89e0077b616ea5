"""The command `convvae-embed`, also `python -m convvae_service.pipeline`."""

import os
import sys
import threading
import warnings
from contextlib import suppress
from typing import NoReturn

# The rest is imported when it is used. A signal during these imports ends the process with one line.
from convvae.program.streams import close_standard_streams, open_standard_streams
from convvae_service.pipeline.errors import RUN_THREADS, Interrupted, PipelineError, failure_text
from convvae_service.pipeline.signals import end_on_signals

__all__ = ["main"]


def main() -> None:
    """Run the command line. An error is one line on stderr and an exit code, without a traceback."""
    with end_on_signals():
        open_standard_streams()
        try:
            _run()
        finally:
            close_standard_streams()


def _run() -> None:
    # gRPC's log lines repeat the error messages. The variable can still turn them on.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # The command names every damaged file. Pillow's warnings do not.
    warnings.filterwarnings("ignore", module="PIL")
    from convvae.program.exit_codes import ExitCode
    from convvae.program.usage import WrongUsage
    from convvae_service.images import BadSource
    from convvae_service.pipeline.cli import app

    try:
        code = app.run(sys.argv[1:])
    except (WrongUsage, BadSource) as error:
        _fail(str(error), ExitCode.REFUSED)
    except (PipelineError, Interrupted) as error:
        _fail(str(error), error.exit_code)
    except (OSError, MemoryError) as error:
        _fail(failure_text(error), ExitCode.FAILED)
    sys.exit(code)


def _fail(message: str, exit_code: int) -> NoReturn:
    from convvae_service.images import printable

    with suppress(OSError):
        print(f"error: {printable(message)}", file=sys.stderr, flush=True)
    # A thread of the run may wait for a disk or a server that does not answer. Python would wait for it.
    if any(thread.name.startswith(RUN_THREADS) for thread in threading.enumerate()):
        os._exit(exit_code)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
