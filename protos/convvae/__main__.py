"""The command `convvae`, also `python -m convvae`."""

import sys

from convvae.errors import ConvvaeError, DeadlineExceeded, TryLater

__all__ = ["main"]


def main() -> None:
    """Run the command line. An error is one line on stderr and an exit code above 0."""
    try:
        from convvae.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "convvae":
            raise
        sys.exit(f"error: {error.name} is not installed: pip install convvae")
    try:
        app()
    except (TryLater, DeadlineExceeded) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(3)
    except ConvvaeError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename or 'input or output'}: {error.strerror or error}")


if __name__ == "__main__":
    main()
