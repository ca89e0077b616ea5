"""The process of a caller: its settings come back after a call, and errors name arguments, not flags."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from convvae_trainer.commands.packages import TRAINER_PACKAGES, require
from convvae_trainer.errors import TrainerError

__all__ = ["called_from_python"]

# A flag as a word of a message.
_FLAG = re.compile(r"(?<![\w-])--(?:no-)?([a-z][a-z-]*)")
# A command for a shell begins with it.
_COMMAND = "convvae-train"
_ARGUMENTS = {"from": "start_from"}


@contextmanager
def called_from_python() -> Iterator[None]:
    """Do the work of a command in the block, in a process that is not the command's.

    Settings of torch are restored after the block. Errors name arguments in place of flags.

    Raises:
        MissingExtra: A package is not installed.
    """
    require(*TRAINER_PACKAGES)
    from convvae_trainer.compute.process import restored_settings

    try:
        with restored_settings():
            yield
    except TrainerError as error:
        error.args = (_in_arguments(str(error)), *error.args[1:])
        raise


def _in_arguments(message: str) -> str:
    """Return a message with `run_dir` for `--run-dir`, except in commands."""
    text, command, rest = message.partition(_COMMAND)
    return _FLAG.sub(_argument, text) + command + rest


def _argument(flag: re.Match[str]) -> str:
    name = flag[1].replace("-", "_")
    return _ARGUMENTS.get(name, name)
