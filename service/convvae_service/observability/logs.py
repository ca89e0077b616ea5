"""Structured logs: a constant message with facts, as JSON lines or as text."""

import hashlib
import json
import logging
import os
import sys
import time
from typing import Any

from convvae_service.observability.log_writer import LogWriter
from convvae_service.printable import printable

__all__ = [
    "JsonFormatter",
    "LogHandler",
    "TextFormatter",
    "facts",
    "flush_logs",
    "is_sampled",
    "log_handler",
    "set_up_logging",
]


def facts(**values: Any) -> dict[str, Any]:
    """Return `values` as the `extra` of a log call: `log.info("...", extra=facts(rows=3))`."""
    return {"facts": values}


def is_sampled(request_id: str, share: float) -> bool:
    """Return whether a call belongs to the `share` (0..1) of calls that are logged.

    The id decides, so all servers with one share log the same calls, and all attempts of a call. A larger
    share logs all calls of a smaller one, and more.
    """
    if share >= 1:
        return True
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


class LogHandler(logging.Handler):
    """A handler that gives records to a `LogWriter`: they are written soon, and no caller waits for it.

    Args:
        fd: The file descriptor to write to.
        as_text: Whether records are formatted for people, and not as JSON.
    """

    def __init__(self, fd: int, *, as_text: bool) -> None:
        super().__init__()
        self.as_text = as_text
        self.setFormatter(TextFormatter() if as_text else JsonFormatter())
        self.writer = LogWriter(fd, encoding=sys.stderr.encoding, dropped_line=self._dropped_line)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, within some 10 ms."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - as every handler of the library does
            self.handleError(record)
            return
        self.writer.write(f"{line}\n")

    def flush(self) -> None:
        """Wait until the records so far are written, for 1 s at most."""
        self.writer.flush()

    def close(self) -> None:
        """End the writer after the records so far."""
        self.writer.close()
        super().close()

    def _dropped_line(self, count: int) -> str:
        values = {"msg": "log lines were dropped", "levelno": logging.WARNING, "levelname": "WARNING"}
        record = logging.makeLogRecord({"name": __name__, **values, **facts(lines=count)})
        return f"{self.format(record)}\n"


def set_up_logging(*, form: str, level: str, fd: int = 2) -> None:
    """Write logs from `level` up to a file descriptor.

    Args:
        form: `json`, `text`, or `auto`: text on a terminal, else JSON.
        level: `debug`, `info`, `warning` or `error`.
        fd: The file descriptor, stderr by default.
    """
    as_text = form == "text" or (form == "auto" and os.isatty(fd))
    logging.captureWarnings(True)
    logging.basicConfig(handlers=[LogHandler(fd, as_text=as_text)], level=level.upper(), force=True)


def log_handler() -> LogHandler | None:
    """Return the handler that `set_up_logging` has installed in this process, if it has."""
    return next((h for h in logging.getLogger().handlers if isinstance(h, LogHandler)), None)


def flush_logs() -> None:
    """Wait until all logs so far are written, for 1 s at most. Call this before `os._exit`."""
    if handler := log_handler():
        handler.flush()


def _utc(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}"
