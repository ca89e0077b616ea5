"""Entry point of `convvae-train`."""

import sys

from convvae_service.bundle import BundleError
from convvae_trainer.cli import app
from convvae_trainer.errors import Interrupted, TrainerError

__all__ = ["main"]


def main() -> None:
    """Run the command line; an error of the user's is one line and an exit code, no traceback."""
    try:
        app()
    except TrainerError as error:
        # A run that was asked to stop, and did, is no error.
        print(error if isinstance(error, Interrupted) else f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
