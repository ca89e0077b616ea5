"""Forks of this process: gRPC does not work in a child if it was in use at the fork.

Such a child has gRPC's locks and its epoll set, which it shares with the parent, but not its threads. A call
there hangs, and takes events of the parent's calls. So the clients of such a child refuse every call at once.

gRPC can restart its threads in a child, but that is turned off in `convvae/__init__.py`, which says why.
"""

import ctypes
import gc
import os
import time
from typing import Any
from weakref import WeakSet, finalize

from convvae.errors import ForkedDuringUse

__all__ = ["FORKS", "ForkGuard"]

# After its last channel, gRPC ends its threads within this time.
_SHUTDOWN_S = 0.3


class ForkGuard:
    """The channels of this process, which decide whether gRPC works in its children.

    Attributes:
        forked: Whether this process was forked since this module was imported.
        refused: Whether gRPC does not work in this process, because the parent had a channel at the fork.
    """

    def __init__(self) -> None:
        self.forked = False
        self.refused = False
        self._channels: WeakSet[Any] = WeakSet()
        self._last_end_s = -_SHUTDOWN_S

    def check(self) -> None:
        """Raise `ForkedDuringUse` if gRPC does not work in this process."""
        if self.refused:
            raise ForkedDuringUse(
                "this process was forked while its parent had an open client, and gRPC cannot work in it: "
                "start workers by 'spawn' or 'forkserver', or close every client before the fork"
            )

    def add(self, channel: Any) -> None:
        """Register a new channel of this process."""
        self._channels.add(channel)
        finalize(channel, self._ended).atexit = False

    def before(self) -> None:
        """Wait until gRPC has ended its threads, if it is about to do so."""
        if not self._channels:
            time.sleep(max(0.0, self._last_end_s + _SHUTDOWN_S - time.monotonic()))

    def after_in_child(self) -> None:
        """Decide whether gRPC works here, and keep what the parent still uses."""
        self.forked = True
        if not self._channels:
            return
        self.refused = True
        # To destroy a channel or a call here would disturb the parent. The interpreter's end would do it too.
        gc.freeze()
        for channel in self._channels:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(channel))

    def _ended(self) -> None:
        self._last_end_s = time.monotonic()


FORKS = ForkGuard()
os.register_at_fork(before=FORKS.before, after_in_child=FORKS.after_in_child)
