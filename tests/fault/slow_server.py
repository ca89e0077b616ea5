"""The service with an engine of known capacity: a run sleeps 20 ms, and a white image makes its batch fail.

    [RUN_S=0.004] python tests/fault/slow_server.py run --models ROOT ...

Sleeping takes no processor from what is measured beside it, so the capacity is the same on every machine.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
import convvae_service.repository.loading as loading
from convvae_service.__main__ import main
from convvae_service.engine.stages import Engine, Rows
from support.observed import ObservedServer

RUN_S = float(os.environ.get("RUN_S", "0.02"))
POISON = 255


class SlowEngine(Engine):
    """Sleeps before every run of a graph."""

    def _run(self, session: Any, outputs: list[str], name: str, rows_B: NDArray[Any]) -> Rows:
        time.sleep(RUN_S)
        if name == "image" and (rows_B.min(axis=(1, 2, 3)) == POISON).any():
            raise RuntimeError("a white image")
        return super()._run(session, outputs, name, rows_B)


class SlowServer(ObservedServer):
    """A server whose engine sleeps in each run: 20 ms, or RUN_S of the environment."""

    program = (__file__,)


if __name__ == "__main__":
    loading.Engine = SlowEngine  # type: ignore[attr-defined]
    main()
