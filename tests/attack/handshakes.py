"""Connections that stop in the middle of their beginning: results/FRONT/handshakes.json.

    python tests/attack/handshakes.py [--front grpcio|native]

By TLS on grpcio, and in plain text on both fronts. A new caller must get through beside them.
"""

import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import trustme

sys.path.insert(0, str(Path(__file__).parents[1]))
from attack.calls import OPTIONS
from attack.target import Outcome, attacked
from convvae.v1 import vae_pb2, vae_pb2_grpc
from support.figure import measure_to_files
from support.tiny_bundle import publish_tiny

CONNECTIONS = 300
# A record of TLS that says that 512 bytes follow, and the first of them.
HELLO = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BEGINNINGS = {
    "nothing": b"",
    "half a hello": HELLO,
    "half a preface": PREFACE[:10],
    "no protocol": b"\xff" * 4096,
    "a preface without settings": PREFACE,
}
TIMEOUT_S = 10.0


def hold(address: str, beginning: bytes, connections: int, hold_s: float, authority: bytes) -> Outcome:
    """Open so many connections that begin so, and make a call on a new one beside them."""
    host, _, port = address.rpartition(":")
    opened: list[socket.socket] = []
    outcome = Outcome(sent_bytes=connections * len(beginning))
    try:
        for _ in range(connections):
            opened.append(socket.create_connection((host, int(port)), timeout=TIMEOUT_S))
            opened[-1].sendall(beginning)
        time.sleep(hold_s / 2)
        outcome.codes[_status_of_a_new_caller(address, authority)] += 1
        time.sleep(hold_s / 2)
    except OSError:
        outcome.facts["refused_connections"] = connections - len(opened)
    finally:
        for connection in opened:
            connection.close()
    return outcome


def _status_of_a_new_caller(address: str, authority: bytes) -> str:
    if authority:
        credentials = grpc.ssl_channel_credentials(authority)
        channel = grpc.secure_channel(address, credentials, OPTIONS)
    else:
        channel = grpc.insecure_channel(address, OPTIONS)
    with channel:
        try:
            request = vae_pb2.SampleRequest(count=1)
            vae_pb2_grpc.VaeServiceStub(channel).Sample(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"


def measure(front: str, connections: int = CONNECTIONS, hold_s: float = 2.0) -> dict[str, Any]:
    """Return the figures of so many connections, held for so many seconds."""
    met: dict[str, bool] = {}
    servers = {}
    for name in ("plain", "tls") if front == "grpcio" else ("plain",):
        with tempfile.TemporaryDirectory() as folder:
            publish_tiny(Path(folder) / "models")
            flags: tuple[str, ...] = ()
            words: dict[str, Any] = {}
            authority = b""
            if name == "tls":
                authority, flags = _papers(Path(folder))
                words["certificate"] = str(Path(folder) / "authority.pem")
            with attacked(front, Path(folder) / "models", *flags, **words) as target:
                for kind, beginning in BEGINNINGS.items():
                    target.observe(kind, hold, beginning, connections, hold_s, authority)
                result = target.finish(authority)
        new = [found.get("codes") for found in result["attacks"].values()]
        is_met = result.pop("met") | {"a new caller is answered": all(codes == {"OK": 1} for codes in new)}
        met = {target: value and met.get(target, True) for target, value in is_met.items()}
        servers[name] = result
    return {"figure": "connections that stop at their beginning", "met": met, "servers": servers}


def _papers(folder: Path) -> tuple[bytes, tuple[str, ...]]:
    """Return an authority in PEM and the flags of a server whose certificate it has signed."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    certificate, key = folder / "server.pem", folder / "server.key"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    return authority.cert_pem.bytes(), ("--tls-certificate", str(certificate), "--tls-key", str(key))


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
