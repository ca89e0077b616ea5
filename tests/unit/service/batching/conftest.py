"""Batchers that are closed after the test."""

from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from support.doubling import MakeBatcher, new_batcher


@pytest.fixture
def make() -> Iterator[MakeBatcher]:
    """Return `new_batcher`; what it has made is closed after the test."""
    with ExitStack() as stack:
        yield lambda **changes: stack.enter_context(closing(new_batcher(**changes)))
