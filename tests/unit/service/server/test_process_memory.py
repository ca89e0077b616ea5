import ctypes
import subprocess
import sys

import pytest

from convvae_service.server.process_memory import trim
from support.resident import resident_kib


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_trimming_gives_back_what_is_pinned_by_a_little() -> None:
    """Freed blocks between blocks that are still used go back to the system, which glibc alone keeps."""
    # Below the size from which glibc gives a block back by itself.
    blocks = [b"x" * 65_536 for _ in range(1000)]
    pins = blocks[::50]
    full_kib = resident_kib()
    del blocks
    assert trim()
    assert full_kib - resident_kib() > 40_000
    assert len(pins) == 20


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no `malloc_trim` nothing is done."""
    monkeypatch.setattr(ctypes, "CDLL", lambda _: sys)
    assert not trim()


_LARGE_BLOCKS = """
import sys, threading
from convvae_service.server.process_memory import heap_bytes, resident_bytes, return_large_blocks

if sys.argv[1] == "returned":
    return_large_blocks()

def work():
    global kept
    for mib in (30, 10, 10):
        blocks = [b"x" * (mib << 20) for _ in range(2)]
        del blocks
    kept = resident_bytes() - heap_bytes()

before = resident_bytes() - heap_bytes()
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(kept - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_large_blocks_go_back_as_soon_as_they_are_freed() -> None:
    """In any thread, and without a trim. By default the heap of the thread keeps some of them."""
    kept = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", _LARGE_BLOCKS, how],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            ).stdout
        )
        for how in ("default", "returned")
    }
    assert kept["default"] > 16 << 20
    assert kept["returned"] < 4 << 20
