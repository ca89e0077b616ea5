"""Tokens of a file, against the metadata of calls."""

import logging
import time
from pathlib import Path

import pytest

from convvae_service.errors import StartupError, Unauthenticated
from convvae_service.server.auth import Tokens


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    path = tmp_path / "tokens"
    path.write_text("# of the team\nfirst\n\n  second  \n")
    return Tokens(path)


def is_accepted(tokens: Tokens, *values: str | bytes) -> bool:
    try:
        tokens.check([("user-agent", "x"), *(("authorization", value) for value in values)])
    except Unauthenticated:
        return False
    return True


@pytest.mark.parametrize("value", ["Bearer first", "bearer second", "BEARER  second "])
def test_a_token_of_the_file_is_accepted(tokens: Tokens, value: str) -> None:
    """The scheme may have any case; spaces around a token do not count."""
    tokens.check((("x-request-id", "a"), ("authorization", value)))


@pytest.mark.parametrize(
    "value",
    [
        "",
        "first",
        "Bearer",
        "Bearer ",
        "Bearer third",
        "Bearer firs",
        "Bearer first2",
        "Bearer # of the team",
        "Bearer\tfirst",
        "Bearer first\t",
        "Bearer first\0",
        "Bearer first\xa0",
        "Bearer first\xe9",
        "Bearer first\udcff",
        "Basic first",
        "Bearer first, Bearer second",
        "Bearer first,",
        "Bearer x, Bearer first",
        "Bearer " + "f" * 16384,
        b"Bearer first",
    ],
)
def test_another_value_is_refused(tokens: Tokens, value: str | bytes) -> None:
    """Comments, empty lines, joined values and bytes are no tokens, nor is anything with odd characters."""
    with pytest.raises(Unauthenticated, match="a valid bearer token is needed"):
        tokens.check((("authorization", value),))


def test_a_call_without_metadata_is_refused(tokens: Tokens) -> None:
    """No metadata at all is no token either."""
    with pytest.raises(Unauthenticated):
        tokens.check(None)


def test_two_values_are_refused(tokens: Tokens) -> None:
    """Nobody can tell which of them a proxy has checked, not even if they are equal."""
    assert is_accepted(tokens, "Bearer first")
    assert not is_accepted(tokens, "Bearer first", "Bearer first")
    assert not is_accepted(tokens, "Bearer x", "Bearer first")
    assert not is_accepted(tokens, "Bearer first", "")
    with pytest.raises(Unauthenticated):
        tokens.check([("authorization-bin", b"Bearer first")])


def test_a_file_without_tokens_is_refused(tmp_path: Path) -> None:
    """The message names the file and what to do."""
    path = tmp_path / "tokens"
    path.write_text("# nothing yet\n")
    with pytest.raises(StartupError, match=r"tokens': has no token: write one token a line"):
        Tokens(path)


@pytest.mark.parametrize(
    "content",
    [
        b"first\r\nsecond\r\n",
        b"\xef\xbb\xbffirst\nsecond",
        b"# Gr\xfc\xdfe\n\n\n\tfirst \nsecond\n",
        b"first\nfirst\nsecond\nsecond\n",
        b"first\rsecond",
    ],
)
def test_files_of_other_editors(tmp_path: Path, content: bytes) -> None:
    """Line ends, a byte order mark, comments in any encoding, tabs and duplicates do not matter."""
    path = tmp_path / "tokens"
    path.write_bytes(content)
    tokens = Tokens(path)
    assert is_accepted(tokens, "Bearer first")
    assert is_accepted(tokens, "Bearer second")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"good\nsecret word\n", 2),
        (b"good\nsecret\0\n", 2),
        (b"secret # comment\n", 1),
        ("good\n\n# x\nsécret\n".encode(), 4),
        ("secret\n".encode("utf-16"), 1),
        (bytes(range(256)), 1),
    ],
)
def test_a_line_that_is_no_token_is_named_by_its_number(tmp_path: Path, content: bytes, line: int) -> None:
    """The content is a secret, and is not shown."""
    path = tmp_path / "tokens"
    path.write_bytes(content)
    with pytest.raises(
        StartupError, match=rf"tokens': line {line} is no token: a token is visible"
    ) as caught:
        Tokens(path)
    assert "cret" not in str(caught.value)


def test_many_tokens_cost_a_call_nothing(tmp_path: Path) -> None:
    """A search through all of them would take 10 ms."""
    path = tmp_path / "tokens"
    path.write_text("".join(f"token-{number}\n" for number in range(100_000)))
    tokens = Tokens(path)
    assert is_accepted(tokens, "Bearer token-99999")
    started_s = time.thread_time()
    for _ in range(200):
        assert not is_accepted(tokens, "Bearer token-100000")
    assert time.thread_time() - started_s < 0.05


def test_a_bad_renewal_is_logged_without_its_content(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The old tokens stay."""
    path = tmp_path / "tokens"
    path.write_text("first\n")
    tokens = Tokens(path)
    path.write_text("other secret\n")
    with caplog.at_level(logging.INFO):
        deadline_s = time.monotonic() + 10
        while not caplog.records and time.monotonic() < deadline_s:
            tokens.look()
            time.sleep(0.05)
    assert is_accepted(tokens, "Bearer first")
    assert "line 1 is no token" in str(caplog.records[0].__dict__["facts"])
    assert "secret" not in str(caplog.records[0].__dict__)
