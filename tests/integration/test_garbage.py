"""What Python's garbage collector has to go through in a server."""

import time
from pathlib import Path

from serving import ServerProcess

# Tells at the start of the drain how many objects the collector leaves alone, and how many it goes through.
PROGRAM = """
import gc, sys
from convvae_service.__main__ import main
from convvae_service.server import Server
drain = Server.drain
async def told(self, **words):
    print("kept", gc.get_freeze_count(), "searched", len(gc.get_objects()), file=sys.stderr, flush=True)
    await drain(self, **words)
Server.drain = told
main()
"""


class TellingServer(ServerProcess):
    """A server that tells of its garbage collector in a line that is no JSON."""

    program = ("-c", PROGRAM)


def test_what_is_there_at_the_start_is_not_searched_again(tiny_root: Path) -> None:
    """Modules and models are kept out of every later collection, which would hold up all calls."""
    server = TellingServer(tiny_root)
    try:
        server.wait_for("serving")
        time.sleep(0.5)
    finally:
        server.stop()
    (line,) = (line for line in server.noise if line.startswith("kept "))
    _, kept, _, searched = line.split()
    assert int(kept) > 10 * int(searched) > 0
