"""Text that a terminal can show: names of files, for one, may have any characters."""

__all__ = ["printable"]


def printable(text: str) -> str:
    r"""Return the text with control characters, line breaks and bytes that are not UTF-8 as `\n`, `\x1b`."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    # Python represents a byte that is not UTF-8 as a lone surrogate.
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")
