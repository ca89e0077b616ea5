"""The access log: one line for each call."""

import logging
import time
from json.encoder import encode_basestring_ascii as quoted

from convvae_service.observability.call import Call
from convvae_service.observability.logs import is_sampled, log_handler
from convvae_service.printable import printable

__all__ = ["AccessLog"]

# The name of the logger in the lines. It belongs to their format.
_LOGGER = "convvae_service.calls.runner"


class AccessLog:
    """Writes a line for each call to the log of this process, if there is one.

    The lines are those of the log's formatters, made by hand: a record of `logging` takes ten times as long.

    Args:
        sample: Share (0..1) of the calls with status OK that are logged; all others are logged.
    """

    def __init__(self, sample: float) -> None:
        self._sample = sample
        handler = log_handler() if logging.getLogger(_LOGGER).isEnabledFor(logging.INFO) else None
        self._writer = handler.writer if handler else None
        self._line = _text_line if handler and handler.as_text else _json_line
        # The last second that was formatted, as a number and as text.
        self._second = (0, "")

    def write(self, call: Call, code: str, seconds: float) -> None:
        """Log a call that took `seconds` and ended with `code`, the name of a gRPC status."""
        if self._writer is None or (code == "OK" and not is_sampled(call.request_id, self._sample)):
            return
        self._writer.write(self._line(self._now(), call, code, round(seconds, 6)))

    def _now(self) -> str:
        """Return the date and time (UTC) with milliseconds."""
        now_s = time.time()
        second, text = self._second
        if second != int(now_s):
            second = int(now_s)
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            # One assignment: other threads see both parts or none.
            self._second = (second, text)
        return f"{text}.{int((now_s - second) * 1000):03d}"


def _json_line(now: str, call: Call, code: str, seconds: float) -> str:
    return (
        f'{{"time": "{now}Z", "level": "info", "logger": "{_LOGGER}", "message": "call",'
        f' "method": "{call.method}", "code": "{code}", "model": {quoted(call.model)},'
        f' "version": {call.version}, "rows": {call.rows}, "seconds": {seconds},'
        f' "request_id": {quoted(call.request_id)}}}\n'
    )


def _text_line(now: str, call: Call, code: str, seconds: float) -> str:
    line = (
        f"{now[11:]} info    call method={call.method} code={code} model={call.model} version={call.version}"
        f" rows={call.rows} seconds={seconds} request_id={call.request_id}"
    )
    return f"{printable(line)}\n"
