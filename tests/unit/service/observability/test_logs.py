import json
import logging
import os
import pty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from convvae_service.observability.logs import facts, flush_logs, is_sampled, set_up_logging

SetUp = Callable[[str], Path]


@pytest.fixture
def set_up(tmp_path: Path) -> Iterator[SetUp]:
    """A function that makes a file the log of this process, in a form, until the test ends."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def to_file(form: str) -> Path:
        set_up_logging(form=form, level="info", fd=fd)
        return path

    yield to_file
    flush_logs()
    logging.basicConfig(handlers=handlers, level=level, force=True)
    os.close(fd)


def read_log(path: Path) -> str:
    flush_logs()
    return path.read_text()


def test_json_lines_have_message_and_facts(set_up: SetUp) -> None:
    """Each line is one object whose facts are keys of their own, whatever they hold."""
    log = set_up("json")
    logging.getLogger("there").info("call", extra=facts(rows=3, model='a"b\n'))
    logging.getLogger("there").debug("not shown")
    (line,) = read_log(log).splitlines()
    entry = json.loads(line)
    assert entry["time"].endswith("Z")
    del entry["time"]
    expected = {"level": "info", "logger": "there", "message": "call", "rows": 3, "model": 'a"b\n'}
    assert entry == expected


def test_exceptions_stay_on_one_line_of_json(set_up: SetUp) -> None:
    """A traceback is a string of its entry."""
    log = set_up("json")
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("there").exception("internal error")
    (line,) = read_log(log).splitlines()
    assert "ValueError: boom" in json.loads(line)["exception"]


def test_auto_is_text_on_a_terminal_alone(set_up: SetUp) -> None:
    """People read text, collectors read JSON."""
    log = set_up("auto")
    logging.getLogger("there").warning("slow", extra=facts(seconds=2))
    assert json.loads(read_log(log))["seconds"] == 2
    ours, terminal = pty.openpty()
    set_up_logging(form="auto", level="info", fd=terminal)
    logging.getLogger("there").warning("slow", extra=facts(seconds=2))
    flush_logs()
    assert b"warning slow seconds=2" in os.read(ours, 1000)
    os.close(ours)
    os.close(terminal)


def test_a_share_of_calls_is_sampled_by_id() -> None:
    """All, none or about the share of ids; the same ones each time, and all of them in a larger share."""
    ids = [f"call-{number}" for number in range(4000)]
    assert all(is_sampled(name, 1.0) for name in ids)
    assert not any(is_sampled(name, 0.0) for name in ids)
    tenth = {name for name in ids if is_sampled(name, 0.1)}
    assert 320 < len(tenth) < 480
    assert tenth == {name for name in reversed(ids) if is_sampled(name, 0.1)}
    assert tenth < {name for name in ids if is_sampled(name, 0.5)}


def test_text_is_safe_for_a_terminal(set_up: SetUp) -> None:
    """Control characters, line breaks and bytes that are no text are escaped, in facts and in errors."""
    log = set_up("text")
    odd = "caf\udce9\n\x1b[31m\x9b\u202e"
    logging.getLogger("there").info("read", extra=facts(folder=odd, name="Größe 猫"))
    try:
        raise ValueError(odd)
    except ValueError:
        logging.getLogger("there").exception("wrong")
    text = read_log(log)
    assert r"folder=caf\xe9\n\x1b[31m\x9b\u202e name=Größe 猫" in text
    assert all(line.isprintable() for line in text.splitlines())


def test_a_record_that_cannot_be_formatted_is_shown(
    set_up: SetUp, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fault in a line of the code is told on stderr, and the log goes on."""
    log = set_up("json")
    logging.getLogger("there").info("%d", "no number")
    logging.getLogger("there").info("good")
    assert "TypeError" in capsys.readouterr().err
    assert json.loads(read_log(log))["message"] == "good"


def test_logs_are_flushed_without_a_log() -> None:
    """A process whose log is not set up has nothing to flush."""
    flush_logs()
