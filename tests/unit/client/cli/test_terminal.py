"""The text that the command line writes."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convvae.cli.terminal import printable
from convvae.connection.words import in_command_words


@given(st.text() | st.binary().map(os.fsdecode))
def test_any_text_is_one_line_that_a_terminal_only_shows(text: str) -> None:
    """Nothing is left that moves the cursor, colours, turns the direction or cannot be encoded."""
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode() or not text
    assert not text.isprintable() or shown == text


def test_escapes_have_their_usual_form() -> None:
    """Control characters, line breaks, marks of direction and raw bytes are escaped; letters are not."""
    assert printable("é\x1b[31m\n\u202e" + os.fsdecode(b"\xe9")) == r"é\x1b[31m\n\u202e\xe9"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pass tls=TLSConfig(), or allow_insecure_token=True", "pass --tls, or --allow-insecure-token"),
        ("check root_certificates= and server_name=", "check --tls-ca and --tls-server-name"),
        ("denied; check token=", "denied; check --token-file"),
        ("not answered within 3 s; raise timeout_s", "not answered within 3 s; raise --timeout"),
        ("model.name: give one of 2 models", "--model: give one of 2 models"),
        ("model is 'm@0'; write NAME", "--model is 'm@0'; write NAME"),
        ("model 'tiny' is gone", "model 'tiny' is gone"),
        ("count: is 0; it must be at least 1", "--count is 0; it must be at least 1"),
        ("num_samples: is -1", "--num-samples is -1"),
        ("ListModels is not known", "convvae models is not known"),
    ],
)
def test_messages_have_the_words_of_the_command_line(text: str, expected: str) -> None:
    """Names of Python's arguments and of the wire become options and commands."""
    assert in_command_words(text) == expected
