import io
import json
import logging
from collections.abc import Iterator

import pytest

from convvae_service.observability.logs import facts, is_sampled, set_up_logging


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_json_lines_have_message_and_facts() -> None:
    """Each line is one object whose facts are keys of their own, whatever they hold."""
    stream = io.StringIO()
    set_up_logging(form="json", level="info", stream=stream)
    logging.getLogger("there").info("call", extra=facts(rows=3, model='a"b\n'))
    logging.getLogger("there").debug("not shown")
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert entry["time"].endswith("Z")
    del entry["time"]
    expected = {"level": "info", "logger": "there", "message": "call", "rows": 3, "model": 'a"b\n'}
    assert entry == expected


def test_exceptions_stay_on_one_line_of_json() -> None:
    """A traceback is a string of its entry."""
    stream = io.StringIO()
    set_up_logging(form="json", level="info", stream=stream)
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("there").exception("internal error")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: boom" in json.loads(line)["exception"]


def test_auto_is_text_on_a_terminal_alone() -> None:
    """People read text, collectors read JSON."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, is_json in ((io.StringIO(), True), (Terminal(), False)):
        set_up_logging(form="auto", level="info", stream=stream)
        logging.getLogger("there").warning("slow", extra=facts(seconds=2))
        text = stream.getvalue()
        assert text.startswith("{") is is_json
        if not is_json:
            assert "warning slow seconds=2" in text


def test_a_share_of_calls_is_sampled_by_id() -> None:
    """All, none or about the share of ids; the same ones each time, and all of them in a larger share."""
    ids = [f"call-{number}" for number in range(4000)]
    assert all(is_sampled(name, 1.0) for name in ids)
    assert not any(is_sampled(name, 0.0) for name in ids)
    tenth = {name for name in ids if is_sampled(name, 0.1)}
    assert 320 < len(tenth) < 480
    assert tenth == {name for name in reversed(ids) if is_sampled(name, 0.1)}
    assert tenth < {name for name in ids if is_sampled(name, 0.5)}


def test_text_is_safe_for_a_terminal() -> None:
    """Control characters, line breaks and bytes that are no text are escaped, in facts and in errors."""
    stream = io.StringIO()
    set_up_logging(form="text", level="info", stream=stream)
    odd = "caf\udce9\n\x1b[31m\x9b\u202e"
    logging.getLogger("there").info("read", extra=facts(folder=odd, name="Größe 猫"))
    try:
        raise ValueError(odd)
    except ValueError:
        logging.getLogger("there").exception("wrong")
    text = stream.getvalue()
    assert r"folder=caf\xe9\n\x1b[31m\x9b\u202e name=Größe 猫" in text
    assert all(line.isprintable() for line in text.splitlines())


def test_a_log_that_cannot_be_written_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A full disk or a pipe without a reader loses lines; a fault in a line is still shown."""

    class Full(io.StringIO):
        def write(self, _: str, /) -> int:
            raise OSError(28, "No space left on device")

    set_up_logging(form="json", level="info", stream=Full())
    logging.getLogger("there").info("lost")
    assert capsys.readouterr() == ("", "")
    set_up_logging(form="json", level="info", stream=io.StringIO())
    logging.getLogger("there").info("%d", "no number")
    assert "TypeError" in capsys.readouterr().err
