"""Errors that nobody catches: a line of the log in place of Python's traceback on stderr.

The text of an error may have what a caller sent, so the line names its kind and its place only.
"""

import logging
import sys
import threading
import traceback

from convvae_service.observability.logs import facts

__all__ = ["log_uncaught", "place_of"]

_log = logging.getLogger(__name__)


def log_uncaught() -> None:
    """Log the errors that end a thread, and those that Python cannot raise, as in `__del__`."""
    threading.excepthook = _log_thread
    sys.unraisablehook = _log_unraisable


def place_of(error: BaseException | None) -> str:
    """Return the file, line and function that raised an error. Nothing of that comes from a caller."""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    return f"{frames[-1].filename}:{frames[-1].lineno} {frames[-1].name}" if frames else ""


def _log_thread(end: threading.ExceptHookArgs) -> None:
    # A thread may end itself by SystemExit.
    if end.exc_type is not SystemExit:
        name = end.thread.name if end.thread is not None else ""
        _log.error(
            "internal error: a thread has ended",
            extra=facts(thread=name, error=end.exc_type.__name__, at=place_of(end.exc_value)),
        )


def _log_unraisable(end: "sys.UnraisableHookArgs") -> None:
    _log.error(
        "internal error: nobody could be told",
        extra=facts(error=end.exc_type.__name__, at=place_of(end.exc_value)),
    )
