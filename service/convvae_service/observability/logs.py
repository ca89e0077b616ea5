"""Structured logs: a constant message and its facts, as JSON lines, or as text on a terminal."""

import hashlib
import json
import logging
import sys
import time
from typing import Any, TextIO

__all__ = ["JsonFormatter", "TextFormatter", "facts", "is_sampled", "set_up_logging"]


def facts(**values: Any) -> dict[str, Any]:
    """Return `values` in the form of a log call's `extra`: `log.info("...", extra=facts(rows=3))`."""
    return {"facts": values}


def is_sampled(request_id: str, share: float) -> bool:
    """Tell whether a call is among the `share` (0..1) of calls that are logged.

    Its id decides: servers with the same share, and a caller's attempts with the same id, agree; and what a
    small share logs, a larger one logs too.
    """
    digest = hashlib.blake2b(request_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message and facts; exceptions as one string."""

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
    """One line for people: time, level, message and facts as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        words = [_utc(record)[11:], f"{record.levelname.lower():7}", record.getMessage()]
        words += [f"{key}={value}" for key, value in getattr(record, "facts", {}).items()]
        text = " ".join(words)
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def set_up_logging(*, form: str, level: str, stream: TextIO = sys.stderr) -> None:
    """Send logs from `level` up to `stream` in `form`: `json`, `text`, or `auto` (text on a terminal)."""
    as_text = form == "text" or (form == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    logging.captureWarnings(True)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)


def _utc(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}"
