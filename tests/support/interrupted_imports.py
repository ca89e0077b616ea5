"""A command that gets a signal while it imports a module."""

import signal
import subprocess
import sys

__all__ = ["interrupted", "interrupting_words"]

# The program sends itself the signal.
_PROGRAM = """
import os, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Interrupt())
from {package}.__main__ import main
main()
"""


def interrupting_words(package: str, module: str, number: signal.Signals, *words: str) -> list[str]:
    """Return the command line of a package's command that gets a signal while it imports `module`."""
    return [sys.executable, "-c", _PROGRAM.format(package=package, module=module, number=int(number)), *words]


def interrupted(
    package: str, module: str, number: signal.Signals, *words: str
) -> subprocess.CompletedProcess[str]:
    """Run that command to its end."""
    command = interrupting_words(package, module, number, *words)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
