"""The command `convvae-embed`, also `python -m convvae_service.pipeline`."""

import os
import sys
import warnings

__all__ = ["main"]


def main() -> None:
    """Run the command line; what ends a run is one line on stderr and an exit code, no traceback."""
    # gRPC's own lines repeat what the errors say better; the variable still turns them on.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # A damaged file is skipped or ends the run, and the message names it; Pillow's own names nothing.
    warnings.filterwarnings("ignore", module="PIL")
    from convvae_service.images import BadSource
    from convvae_service.pipeline.cli import app
    from convvae_service.pipeline.errors import Interrupted, PipelineError
    from convvae_service.pipeline.stopping import stop_on_signals

    try:
        with stop_on_signals():
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
