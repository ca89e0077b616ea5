"""The objects that Python's garbage collector has to go through in a server."""

import time
from pathlib import Path

import pytest

from support.serving import ServerProcess

# Tells at the start of the drain how many objects the collector leaves alone, and how many it goes through,
# and with each report of health whether there are any of the first kind.
PROGRAM = """
import gc, os
from convvae_service.server import health

def say(*words):
    # At once, so that no line of the log gets between the words.
    os.write(2, (" ".join(map(str, words)) + "\\n").encode())

follow = health.HealthServicer.follow
def reported(self, models):
    say("reports", any(models.values()), "frozen", gc.get_freeze_count() > 0)
    follow(self, models)
health.HealthServicer.follow = reported
from convvae_service.__main__ import main
from convvae_service.server.lifecycle import Server
drain = Server.drain
async def told(self, **words):
    say("kept", gc.get_freeze_count(), "searched", len(gc.get_objects()))
    await drain(self, **words)
Server.drain = told
main()
"""


class TellingServer(ServerProcess):
    """A server that tells of its garbage collector in a line that is no JSON."""

    program = ("-c", PROGRAM)


@pytest.mark.usefixtures("each_front")
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
    # Before the first call can come, which would be held up.
    reports = [line.strip() for line in server.noise if line.startswith("reports True")]
    assert reports == ["reports True frozen True"]
