"""The command `convvae-serve run`: the server, from its settings to its end."""

import asyncio
import sys
import warnings
from collections.abc import Sequence

from convvae.program.exit_codes import ExitCode
from convvae_service.cli.output import fail
from convvae_service.errors import StartupError
from convvae_service.observability.logs import flush_logs, set_up_logging
from convvae_service.observability.uncaught import log_uncaught
from convvae_service.server.early_signals import end_on_signals
from convvae_service.settings.loader import load_settings

__all__ = ["serve"]


def serve(words: Sequence[str]) -> None:
    """Serve until a signal, with the settings of the flags `words`, and end the process with its code."""
    # The caller gets an error for a damaged file; the log needs no warning.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        settings = load_settings(words)
        set_up_logging(form=settings.log_format, level=settings.log_level)
        log_uncaught()
        # ONNX Runtime and gRPC load after what can be refused without them.
        from convvae_service.server.process import run

        try:
            import uvloop
        except ModuleNotFoundError:
            loop_factory = None
        else:
            loop_factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            code = runner.run(run(settings))
        flush_logs()
        # The event loop does not handle signals any more, and the process has not ended yet.
        end_on_signals("second signal: stopped by", lambda _: int(ExitCode.FAILED))
        sys.exit(code)
    except StartupError as error:
        flush_logs()
        fail(str(error))
