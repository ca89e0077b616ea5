"""The command `convvae`, also `python -m convvae`."""

import os
import signal
import sys
from types import FrameType

from convvae.program.exit_codes import ExitCode, stopped_by
from convvae.program.streams import take_standard_numbers

__all__ = ["main"]


def _end_start(number: int, frame: FrameType | None) -> None:
    """End the process while it loads its modules: nothing is open yet."""
    del frame
    os.write(2, f"error: interrupted by {signal.Signals(number).name}\n".encode())
    os._exit(stopped_by(number))


def main() -> None:
    """Run the command line. An error is one line on stderr and an exit code above 0."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end_start)
    take_standard_numbers()
    # gRPC's log lines repeat the error messages. The variable can still turn them on.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from convvae.cli.app import app
        from convvae.cli.ending import ending
        from convvae.cli.signals import Interrupted, raise_on_signals
        from convvae.cli.terminal import complain
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "convvae":
            raise
        sys.stderr.write(f"error: {error.name} is not installed: pip install convvae\n")
        sys.exit(ExitCode.REFUSED)
    try:
        raise_on_signals()
        code = app.run(sys.argv[1:])
    except Interrupted as error:
        complain(error)
        # A thread of gRPC may hold a lock that the interpreter's end would wait for.
        os._exit(error.exit_code)
    except Exception as error:
        known = ending(error)
        if known is None:
            raise
        code, text = known
        complain(text)
    sys.exit(code)


if __name__ == "__main__":
    main()
