"""A watch over connections and open files: without it, connections are refused, or wait, without a word."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Set
from pathlib import Path

from convvae_service.observability.logs import facts
from convvae_service.server.local_addresses import LocalEnd

__all__ = ["ConnectionWatch", "count_connections"]

_INTERVAL_S = 1.0
_MIN_SILENCE_S = 60.0
# States of connections that are open, in the tables of TCP and of Unix sockets.
_ESTABLISHED, _CONNECTED = "01", "03"

_log = logging.getLogger(__name__)


class ConnectionWatch:
    """Logs, once a minute at most, that connections are refused, or will soon wait for a free file.

    Args:
        ends: The server's ends of its connections.
        limit: Number of connections from which on others are refused. If the front refuses none, the number
            of open files from which on the log warns: a connection may take several files there.
        refuses: Whether the front refuses connections above the limit.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        *,
        ends: Set[LocalEnd],
        limit: int,
        refuses: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ends = ends
        self._limit = limit
        self._refuses = refuses
        self._clock = clock
        self._silent_until_s = 0.0

    async def run(self) -> None:
        """Look at intervals until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            if self._clock() >= self._silent_until_s:
                await asyncio.to_thread(self.look_once)

    def look_once(self) -> None:
        """Count open files and connections, and log if there are as many as allowed."""
        try:
            files = len(list(Path("/dev/fd").iterdir()))
        except FileNotFoundError:
            return
        except OSError as error:
            self._say("connections wait: the process cannot open another file", error=error.strerror)
            return
        # A cheap bound: each connection is an open file.
        if files < self._limit:
            return
        if not self._refuses:
            self._say(
                "open files are nearly used up: connections may have to wait, raise their limit (ulimit -n)",
                open_files=files,
            )
        elif (number := count_connections(self._ends)) >= self._limit:
            self._say("the limit of connections is reached: others are refused", connections=number)

    def _say(self, message: str, **details: object) -> None:
        self._silent_until_s = self._clock() + _MIN_SILENCE_S
        _log.warning(message, extra=facts(limit=self._limit, **details))


def count_connections(ends: Set[LocalEnd]) -> int:
    """Return the number of connections to these ends; 0 where the system has no such tables."""
    number = 0
    for table in ("tcp", "tcp6"):
        for _, local, _, state, *_ in _rows(table):
            number += state == _ESTABLISHED and int(local.rpartition(":")[2], 16) in ends
    for _, _, _, _, _, state, _, *path in _rows("unix"):
        number += state == _CONNECTED and " ".join(path) in ends
    return number


def _rows(table: str) -> list[list[str]]:
    """Return the words of each row of a table of connections."""
    with contextlib.suppress(OSError):
        return [line.split() for line in Path("/proc/self/net", table).read_text().splitlines()[1:]]
    return []
