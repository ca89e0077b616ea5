"""Entry point of `convvae-train`."""

import os
import sys
import warnings

from convvae_service.bundle import BundleError
from convvae_trainer.cli.app import app
from convvae_trainer.errors import Interrupted, TrainerError

__all__ = ["main"]


# How long a thread of torch's OpenMP spins while it waits for the others. With the default, 300,000, and the
# two cores of the machine busy with other work, a step took 8 times as long (1.8 s for 0.24 s).
SPIN_COUNT = "1000"


def main() -> None:
    """Run the command line; an error of the user's is one line and an exit code, no traceback."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    # A damaged picture ends the run, and the message names it; Pillow's own names nothing.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        app()
    except TrainerError as error:
        # A run that was asked to stop, and did, is no error.
        print(error if isinstance(error, Interrupted) else f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"error: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except MemoryError as error:
        print(f"error: memory ran out: {str(error) or 'use fewer or smaller images'}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
