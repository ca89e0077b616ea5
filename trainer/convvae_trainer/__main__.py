"""Entry point of `convvae-train`."""

import os
import sys
import warnings

from convvae_service.bundle import BundleError
from convvae_trainer.cli.app import app
from convvae_trainer.errors import Interrupted, TrainerError

__all__ = ["main"]


# Spins of an OpenMP thread of torch while it waits for the other threads. With the default of 300,000, a step
# took 1.8 s instead of 0.24 s on two cores that were busy with other work.
SPIN_COUNT = "1000"


def main() -> None:
    """Run the command line. An expected error becomes one line and an exit code, without a traceback."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    # A damaged image file ends the run with an error that names it. Pillow's own warnings name no file.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        app()
    except TrainerError as error:
        # It is not an error if a run stops after a signal.
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
