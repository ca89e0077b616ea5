"""Tokens of a file, against the metadata of calls."""

import os
import threading
from pathlib import Path

import pytest

from convvae_service.errors import StartupError, Unauthenticated
from convvae_service.server.auth import Tokens


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    path = tmp_path / "tokens"
    path.write_text("# of the team\nfirst\n\n  second  \n")
    return Tokens(path)


@pytest.mark.parametrize("value", ["Bearer first", "bearer second", "BEARER  second "])
def test_a_token_of_the_file_is_accepted(tokens: Tokens, value: str) -> None:
    """The scheme may have any case; spaces around a token do not count."""
    tokens.check((("x-request-id", "a"), ("authorization", value)))


@pytest.mark.parametrize(
    "value", ["", "first", "Bearer", "Bearer third", "Bearer # of the team", b"Bearer first"]
)
def test_another_value_is_refused(tokens: Tokens, value: str | bytes) -> None:
    """Comments, empty lines and bytes are no tokens."""
    with pytest.raises(Unauthenticated, match="a valid bearer token is needed"):
        tokens.check((("authorization", value),))


def test_a_call_without_metadata_is_refused(tokens: Tokens) -> None:
    """No metadata at all is no token either."""
    with pytest.raises(Unauthenticated):
        tokens.check(None)


def test_a_file_without_tokens_is_refused(tmp_path: Path) -> None:
    """The message names the file and what to do."""
    path = tmp_path / "tokens"
    path.write_text("# nothing yet\n")
    with pytest.raises(StartupError, match=r"tokens': has no token: write one token a line"):
        Tokens(path)


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    """A shell's `<(command)` gives a pipe: a second reading would wait for ever."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=("first\n",))
    writer.start()
    tokens = Tokens(path)
    writer.join()
    os.utime(path, ns=(1, 1))
    tokens.check((("authorization", "Bearer first"),))


def test_a_file_that_becomes_readable_is_read(tmp_path: Path) -> None:
    """A change of its rights is a change, whatever its time and size say."""
    path = tmp_path / "tokens"
    path.write_text("first\n")
    tokens = Tokens(path)
    state = path.stat()
    path.write_text("other\n")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    path.chmod(0o600)
    tokens.check((("authorization", "Bearer other"),))
