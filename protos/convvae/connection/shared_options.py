"""Options that several commands share: the parameters of one function, added to those of others."""

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

__all__ = ["with_options_of"]

Made = TypeVar("Made")
Result = TypeVar("Result")


def with_options_of(
    make: Callable[..., Made],
    enter: Callable[[Made], AbstractContextManager[Made]] = nullcontext,
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Return a decorator of functions whose first parameter is what `make` returns.

    The decorated function has its other parameters and those of `make`, all by name.

    Args:
        make: Makes the first argument.
        enter: Returns a context around the call, with the argument.
    """
    shared = list(inspect.signature(make).parameters.values())

    def decorate(command: Callable[..., Result]) -> Callable[..., Result]:
        own = list(inspect.signature(command).parameters.values())[1:]

        @functools.wraps(command)
        def whole(**arguments: Any) -> Result:
            given = {p.name: arguments.pop(p.name) for p in shared if p.name in arguments}
            with enter(make(**given)) as made:
                return command(made, **arguments)

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *shared)]
        whole.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        whole.__annotations__ = {p.name: p.annotation for p in parameters}
        return whole

    return decorate
