"""The command `convvae-embed`, also `python -m convvae_service.pipeline`."""

import os
import sys
import warnings

__all__ = ["main"]


def main() -> None:
    """Run the command line. An error is one line on stderr and an exit code, without a traceback."""
    # gRPC's log lines repeat the error messages. The variable can still turn them on.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # The command names every damaged file. Pillow's warnings do not.
    warnings.filterwarnings("ignore", module="PIL")
    from convvae_service.images import BadSource
    from convvae_service.pipeline.cli import app
    from convvae_service.pipeline.errors import Interrupted, PipelineError
    from convvae_service.pipeline.signals import interrupt_on_signals

    try:
        with interrupt_on_signals():
            app()
    except BadSource as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (PipelineError, Interrupted) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        print(f"error: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
