import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convvae_service.observability.access_log import AccessLog
from convvae_service.observability.call import Call
from convvae_service.observability.logs import (
    JsonFormatter,
    TextFormatter,
    facts,
    flush_logs,
    is_sampled,
    set_up_logging,
)

LOGGER = "convvae_service.calls.runner"


class Log:
    """A file that is the log of this process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def set_up(self, form: str, level: str = "info", sample: float = 1.0) -> AccessLog:
        set_up_logging(form=form, level=level, fd=self.fd)
        return AccessLog(sample)

    def read(self) -> list[str]:
        flush_logs()
        text = self._path.read_text()
        os.truncate(self._path, 0)
        return text.split("\n")[:-1]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    log = Log(tmp_path / "log")
    yield log
    flush_logs()
    logging.basicConfig(handlers=handlers, level=level, force=True)
    os.close(log.fd)


def formatted(call: Call, code: str, seconds: float, form: str) -> str:
    """Return the line that the formatter makes of a record with these facts."""
    record = logging.makeLogRecord(
        {
            "name": LOGGER,
            "levelno": logging.INFO,
            "levelname": "INFO",
            "msg": "call",
            **facts(
                method=call.method,
                code=code,
                model=call.model,
                version=call.version,
                rows=call.rows,
                seconds=round(seconds, 6),
                request_id=call.request_id,
            ),
        }
    )
    return (TextFormatter() if form == "text" else JsonFormatter()).format(record)


def without_time(line: str) -> str:
    return re.sub(r"(\d{4}-\d\d-\d\dT)?\d\d:\d\d:\d\d\.\d{3}", "TIME", line, count=1)


@pytest.mark.parametrize("form", ["json", "text"])
@given(
    call=st.builds(
        Call,
        st.sampled_from(["Encode", "ModelInfer"]),
        st.from_regex(r"[\x21-\x7e]{1,128}", fullmatch=True),
        rows=st.integers(0, 10**6),
        model=st.text(max_size=40),
        version=st.integers(0, 10**9),
    ),
    code=st.sampled_from(["OK", "NOT_FOUND", "DEADLINE_EXCEEDED"]),
    seconds=st.floats(0, 1e6),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_line_is_what_the_formatter_makes(
    log: Log, form: str, call: Call, code: str, seconds: float
) -> None:
    """Byte for byte, whatever the model is called: always one line, without control characters."""
    log.set_up(form).write(call, code, seconds)
    (line,) = log.read()
    assert without_time(line) == without_time(formatted(call, code, seconds, form))
    assert line.isprintable()


def test_times_are_those_of_records(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Date, time and milliseconds in UTC, also when the clock goes on, goes back, and at a new second."""
    access_log = log.set_up("json")
    times_s = [1_700_000_000.0, 1_700_000_000.9996, 1_700_000_001.25, 1_600_000_000.001, 1_600_000_000.5]
    for now_s in times_s:
        monkeypatch.setattr("time.time", lambda now_s=now_s: now_s)
        access_log.write(Call("Encode", "1"), "OK", 0)
    monkeypatch.undo()
    assert [json.loads(line)["time"] for line in log.read()] == [
        "2023-11-14T22:13:20.000Z",
        "2023-11-14T22:13:20.999Z",
        "2023-11-14T22:13:21.250Z",
        "2020-09-13T12:26:40.000Z",
        "2020-09-13T12:26:40.500Z",
    ]


def test_calls_and_records_are_in_one_order(log: Log) -> None:
    """The line of a call stands where it happened among the other lines."""
    access_log = log.set_up("json")
    for number in range(100):
        access_log.write(Call("Encode", f"{number}"), "OK", 0.1)
        logging.getLogger("there").warning("%d", number)
    lines = [json.loads(line) for line in log.read()]
    assert [line["request_id"] for line in lines[::2]] == [f"{number}" for number in range(100)]
    assert [line["message"] for line in lines[1::2]] == [f"{number}" for number in range(100)]


def test_a_share_of_the_calls_with_ok_is_logged(log: Log) -> None:
    """The id decides about calls with OK; every other call has a line."""
    access_log = log.set_up("json", sample=0.5)
    ids = [f"call-{number}" for number in range(50)]
    for name in ids:
        access_log.write(Call("Encode", name), "OK", 0.1)
        access_log.write(Call("Encode", name), "NOT_FOUND", 0.1)
    lines = [json.loads(line) for line in log.read()]
    assert [line["request_id"] for line in lines if line["code"] == "NOT_FOUND"] == ids
    sampled = [name for name in ids if is_sampled(name, 0.5)]
    assert [line["request_id"] for line in lines if line["code"] == "OK"] == sampled
    assert 0 < len(sampled) < 50


@pytest.mark.parametrize("level", ["warning", "error"])
def test_a_higher_level_logs_no_calls(log: Log, level: str) -> None:
    """The line of a call is an information, whatever its code."""
    access_log = log.set_up("json", level)
    access_log.write(Call("Encode", "1"), "INTERNAL", 0.1)
    assert log.read() == []


def test_a_process_without_a_log_writes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """A server inside another program leaves the log to it."""
    AccessLog(1.0).write(Call("Encode", "1"), "OK", 0.1)
    assert capfd.readouterr() == ("", "")
