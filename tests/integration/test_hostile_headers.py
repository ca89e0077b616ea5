"""Peers that acknowledge nothing: the front `grpcio`."""

import time
from pathlib import Path

from convvae.v1 import vae_pb2 as pb
from support.raw_connection import RawConnection
from support.raw_http2 import grpc_message
from support.serving import serving

ENCODE = "/convvae.v1.VaeService/Encode"
LISTING = "/convvae.v1.VaeService/ListModels"
MAX_S = 20.0


def test_a_peer_that_acknowledges_no_settings_is_closed(tiny_root: Path) -> None:
    """It has 5 s. A peer that acknowledges them, and says nothing else, stays."""
    with serving(tiny_root, "--front", "grpcio") as server:
        polite, silent = RawConnection(server.target), RawConnection(server.target, acknowledges=False)
        polite.read(0.5)
        assert _closes_within(silent, MAX_S)
        polite.read(0.5)
        assert not polite.closed
        stream = polite.begin(LISTING)
        request = grpc_message(pb.ListModelsRequest().SerializeToString())
        polite.send_data(stream, request, ends=True)
        polite.read_until_ended(1, MAX_S)
        assert polite.ended == 1
        polite.close()


def _closes_within(connection: RawConnection, seconds: float) -> bool:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s and not connection.closed:
        connection.read(0.2)
    connected = not connection.closed
    connection.close()
    return not connected
