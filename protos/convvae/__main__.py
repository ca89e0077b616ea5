"""The command `convvae`, also `python -m convvae`."""

import os
import signal
import sys
from types import FrameType

__all__ = ["main"]


def _end_start(number: int, frame: FrameType | None) -> None:
    """End the process while it loads its modules: nothing is open yet."""
    del frame
    os.write(2, f"error: interrupted by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


def main() -> None:
    """Run the command line. An error is one line on stderr and an exit code above 0."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end_start)
    # gRPC's log lines repeat the error messages. The variable can still turn them on.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from convvae.cli.app import app
        from convvae.cli.signals import Interrupted, raise_on_signals
        from convvae.cli.terminal import StandardOutputFailed, complain
        from convvae.errors import ConvvaeError, DeadlineExceeded, TryLater
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "convvae":
            raise
        sys.exit(f"error: {error.name} is not installed: pip install convvae")
    try:
        raise_on_signals()
        app()
    except (TryLater, DeadlineExceeded) as error:
        complain(error)
        sys.exit(3)
    except (ConvvaeError, StandardOutputFailed) as error:
        complain(error)
        sys.exit(1)
    except OSError as error:
        complain(f"{error.filename or 'input or output'}: {error.strerror or error}")
        sys.exit(1)
    except Interrupted as error:
        complain(error)
        # A thread of gRPC may hold a lock that the interpreter's end would wait for.
        os._exit(error.exit_code)


if __name__ == "__main__":
    main()
