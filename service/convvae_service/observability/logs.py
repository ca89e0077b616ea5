"""Structured logs: a constant message with facts, as JSON lines or as text."""

import hashlib
import json
import logging
import sys
import time
from typing import Any, TextIO

from convvae_service.printable import printable

__all__ = ["JsonFormatter", "TextFormatter", "facts", "is_sampled", "set_up_logging"]


def facts(**values: Any) -> dict[str, Any]:
    """Return `values` as the `extra` of a log call: `log.info("...", extra=facts(rows=3))`."""
    return {"facts": values}


def is_sampled(request_id: str, share: float) -> bool:
    """Return whether a call belongs to the `share` (0..1) of calls that are logged.

    The id decides, so all servers with one share log the same calls, and all attempts of a call. A larger
    share logs all calls of a smaller one, and more.
    """
    digest = hashlib.blake2b(request_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: time (UTC), level, logger, message, facts and exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        entry = {
            "time": f"{_utc(record)}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class TextFormatter(logging.Formatter):
    """Formats a record for people: time (UTC), level, message, and facts as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        words = [_utc(record)[11:], f"{record.levelname.lower():7}", record.getMessage()]
        words += [f"{key}={value}" for key, value in getattr(record, "facts", {}).items()]
        lines = [" ".join(words)]
        if record.exc_info:
            lines += self.formatException(record.exc_info).splitlines()
        return "\n".join(map(printable, lines))


class _Handler(logging.StreamHandler[TextIO]):
    """A handler that goes on when its stream cannot be written: the disk is full, or the reader has gone."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name of the base class
        """Drop the record."""
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


def set_up_logging(*, form: str, level: str, stream: TextIO | None = None) -> None:
    """Write logs from `level` up to `stream`.

    Args:
        form: `json`, `text`, or `auto`: text on a terminal, else JSON.
        level: `debug`, `info`, `warning` or `error`.
        stream: The output, stderr by default.
    """
    stream = stream or sys.stderr
    as_text = form == "text" or (form == "auto" and stream.isatty())
    handler = _Handler(stream)
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    logging.captureWarnings(True)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)


def _utc(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}"
