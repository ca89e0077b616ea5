"""Messages of the Python client in the words of the command lines that use it."""

import re

__all__ = ["in_command_words"]

# The words of the Python client and of the wire, and those of the command line.
_WORDS = (
    (re.compile(r"\btls=TLSConfig\(\)"), "--tls"),
    (re.compile(r"\ballow_insecure_token=True"), "--allow-insecure-token"),
    (re.compile(r"\broot_certificates="), "--tls-ca"),
    (re.compile(r"\bcertificate_chain="), "--tls-certificate"),
    (re.compile(r"\bprivate_key="), "--tls-key"),
    (re.compile(r"\bserver_name="), "--tls-server-name"),
    (re.compile(r"\btoken=(?!\w)"), "--token-file"),
    (re.compile(r"\btimeout_s\b"), "--timeout"),
    (re.compile(r"\bmax_in_flight\b"), "--max-in-flight"),
    (re.compile(r"\bmodel\.(?:name|version)\b"), "--model"),
    (re.compile(r"\b(?:Set|set|give) model=?(?= )"), "give --model"),
    (re.compile(r"\bmodel(?= is ')"), "--model"),
    (re.compile(r"\bnum_samples\b"), "--num-samples"),
    (re.compile(r"\bfirst_row\b"), "--first-row"),
    (re.compile(r"^(count|seed|temperature|target)\b(?=:| is)"), r"--\1"),
    (re.compile(r"^(--[a-z-]+): is\b"), r"\1 is"),
    (re.compile(r"\bListModels\b"), "convvae models"),
    (re.compile(r"\bGetModel\b"), "the description of the model"),
)


def in_command_words(text: str) -> str:
    """Return a message of the Python client in the words of the command line."""
    for pattern, words in _WORDS:
        text = pattern.sub(words, text)
    return text
