"""How a handler waits: for a result that another thread has later."""

import types
from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeVar

__all__ = ["Awaited", "wait"]

Result_co = TypeVar("Result_co", covariant=True)
Result = TypeVar("Result")


class Awaited(Protocol[Result_co]):
    """A future result, such as `concurrent.futures.Future` or a call in the batcher."""

    def add_done_callback(self, fn: Callable[[Any], Any], /) -> None:
        """Call `fn` when the result or an error is there, at once if it is."""

    def cancel(self) -> bool:
        """Give up the result, if possible."""

    def result(self) -> Result_co:
        """Return the result, or raise the error."""


@types.coroutine
def wait(future: Awaited[Result]) -> Generator[Awaited[Any], None, Result]:
    """Return the result of `future`. Only the coroutine of a `RunningCall` may await this."""
    yield future
    try:
        return future.result()
    finally:
        # The error's traceback has this frame, and the future has the error.
        del future
