"""Entry point of `convvae-train`."""

import os
import sys
import warnings

# The rest is imported when it is used: a signal meanwhile ends the process in one line.
from convvae_trainer.runs.signals import end_on_signals

__all__ = ["main"]


# Spins of an OpenMP thread of torch while it waits for the other threads. With the default of 300,000, a step
# took 1.8 s instead of 0.24 s on two cores that were busy with other work.
SPIN_COUNT = "1000"


def main() -> None:
    """Run the command line. An expected error becomes one line and an exit code, without a traceback."""
    end_on_signals()
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    # A damaged image file ends the run with an error that names it. Pillow's own warnings name no file.
    warnings.filterwarnings("ignore", module="PIL")
    from convvae.program.streams import close_standard_streams, open_standard_streams
    from convvae_trainer.streams import print_error

    open_standard_streams()
    try:
        line, code = _run(sys.argv[1:])
        if line:
            print_error(line)
    finally:
        # The work is done or given up: no signal raises an exception any more.
        end_on_signals()
        close_standard_streams()
    sys.exit(code)


def _run(words: list[str]) -> tuple[str, int]:
    """Run the command line; return the last line for stderr, "" without one, and the exit code."""
    from convvae.program.exit_codes import ExitCode, stopped_by
    from convvae.program.usage import WrongUsage
    from convvae_service.bundle import BundleError
    from convvae_trainer.cli.app import app
    from convvae_trainer.errors import Interrupted, TrainerError
    from convvae_trainer.runs.signals import Stopped
    from convvae_trainer.streams import check_utf8

    try:
        for word in words:
            check_utf8(word)
        return "", app.run(words)
    except TrainerError as error:
        # It is not an error if a run stops after a signal.
        return str(error) if isinstance(error, Interrupted) else f"error: {error}", error.exit_code
    except Stopped as stopped:
        return stopped.text, stopped_by(stopped.number)
    except (WrongUsage, BundleError) as error:
        return f"error: {error}", int(ExitCode.REFUSED)
    except OSError as error:
        return f"error: {error.filename or 'input or output'}: {error.strerror or error}", int(
            ExitCode.FAILED
        )
    except MemoryError as error:
        return f"error: memory ran out: {str(error) or 'use fewer or smaller images'}", int(ExitCode.FAILED)


if __name__ == "__main__":
    main()
