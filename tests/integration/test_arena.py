"""A server holds memory between runs as `--arena` says."""

from pathlib import Path

import numpy as np
import pytest

from convvae.v1 import vae_pb2 as pb
from convvae_service.bundle import ImageShape
from support.serving import ServerProcess, serving
from support.tiny_bundle import publish_tiny
from support.wire import TIMEOUT_S, pixels, stub_of

WIDE = ImageShape(height=256, width=256, channels=3)
ROWS = 64
# A run of 64 rows needs this twice, as float32 pixels: 96 MiB.
RUN_MIB = 2 * ROWS * WIDE.num_values * 4 / 2**20


def peak_and_resident_mib(server: ServerProcess) -> tuple[float, float]:
    """Return the most memory that the server's process has had, and what it has."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    sizes = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
    return int(sizes["VmHWM"]) / 1024, int(sizes["VmRSS"]) / 1024


@pytest.mark.parametrize(("arena", "gives_back"), [("keep", False), ("off", True)])
def test_a_server_gives_memory_back_only_without_an_arena(
    tmp_path: Path, arena: str, gives_back: bool
) -> None:
    """After a large batch the server keeps the memory of the run, or has given back most of it."""
    publish_tiny(tmp_path, shape=WIDE, latent_dim=2)
    images = np.zeros((ROWS, *WIDE.as_tuple), np.uint8)
    with serving(tmp_path, "--arena", arena, "--threads", "1") as server, stub_of(server.target) as stub:
        _, before_mib = peak_and_resident_mib(server)
        reply = stub.Encode(pb.EncodeRequest(pixels=pixels(images)), timeout=TIMEOUT_S)
        peak_mib, after_mib = peak_and_resident_mib(server)
    assert reply.mean.count == ROWS
    assert peak_mib - before_mib > RUN_MIB
    assert (peak_mib - after_mib > 0.7 * RUN_MIB) == gives_back
