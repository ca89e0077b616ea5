"""Addresses of a real server: several of them, and Unix sockets."""

import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trustme

from convvae import Client, RetryConfig, TLSConfig
from support.serving import serving, start_failure
from support.tiny_bundle import SHAPE

NO_RETRY = RetryConfig(retries=0)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a socket in the working folder: the names of pytest's folders may be too long."""
    monkeypatch.chdir(tmp_path)
    return Path("vae.sock")


def sample(target: str, **settings: object) -> np.ndarray:
    with Client(target, retry=NO_RETRY, timeout_s=10, **settings) as vae:  # type: ignore[arg-type]
        return vae.sample(2, seed=7).images


@pytest.mark.usefixtures("each_front")
def test_a_unix_socket_is_called_like_a_port(tiny_root: Path, place: Path) -> None:
    """Client and command line call it, it is for the owner and the group, and it goes with its server."""
    target = f"unix:{place}"
    with serving(tiny_root, "--address", target) as server:
        assert server.target == target
        mode = place.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o660
        assert list(Path().iterdir()) == [place]
        assert sample(target).shape == (2, *SHAPE.as_tuple)
        words = [sys.executable, "-m", "convvae", "health", "--target", target]
        assert subprocess.run(words, timeout=60, check=False).returncode == 0
        words = [sys.executable, "-m", "convvae", "models", "--target", target]
        assert "tiny" in subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
        assert server.stop() == 0
    assert list(Path().iterdir()) == []


@pytest.mark.usefixtures("each_front")
def test_several_addresses_serve_the_same_models(tiny_root: Path, place: Path) -> None:
    """Ports and a socket answer alike, and the log names each with its port."""
    flags = ("--address", "127.0.0.1:0", "--address", f"localhost:0,unix:{place}", "--socket-mode", "600")
    with serving(tiny_root, *flags) as server:
        targets = server.target.split(", ")
        assert [target.rpartition(":")[0] for target in targets] == ["127.0.0.1", "localhost", "unix"]
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        first, *others = [sample(target) for target in targets]
        for images in others:
            np.testing.assert_array_equal(images, first)
    for target in targets[:2]:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(target.rpartition(":")[2])), timeout=5)


@pytest.mark.usefixtures("each_front")
def test_a_live_socket_is_kept_and_a_dead_one_replaced(tiny_root: Path, place: Path) -> None:
    """A second server does not start and disturbs nobody; one after a server that was killed starts."""
    words = ("--models", str(tiny_root), "--address", f"unix:{place}")
    with serving(tiny_root, "--address", f"unix:{place}") as server:
        assert start_failure(*words) == (
            f"address unix:{place} cannot be used: another program listens there;"
            " choose another with --address"
        )
        assert len(sample(f"unix:{place}")) == 2
        server.send(signal.SIGKILL)
        server.wait()
        assert place.is_socket()
    with serving(tiny_root, "--address", f"unix:{place}"):
        assert len(sample(f"unix:{place}")) == 2
    assert list(Path().iterdir()) == []


@pytest.mark.usefixtures("each_front")
def test_a_start_that_fails_leaves_no_socket(tiny_root: Path, place: Path) -> None:
    """The next address may be in use, or no model may load."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        message = start_failure("--models", str(tiny_root), "--address", f"unix:{place},{address}")
    assert message.startswith(f"address {address} cannot be used: another program listens there")
    assert list(Path().iterdir()) == []


def test_tokens_may_travel_through_a_socket(tiny_root: Path, place: Path, tmp_path: Path) -> None:
    """It never leaves the machine; a port for other machines beside it still needs TLS."""
    tokens = tmp_path / "tokens"
    tokens.write_text("s3cret\n")
    flags = ("--token-file", str(tokens), "--address", f"unix:{place}")
    with serving(tiny_root, *flags):
        assert len(sample(f"unix:{place}", token="s3cret")) == 2
    message = start_failure("--models", str(tiny_root), *flags, "--address", "0.0.0.0:0")
    assert message.startswith("tokens would travel in plain text to 0.0.0.0:0: give --tls-certificate")


def test_a_socket_is_encrypted_like_a_port(tiny_root: Path, place: Path, tmp_path: Path) -> None:
    """With a certificate, callers of the socket need TLS too: client certificates hold there."""
    authority = trustme.CA()
    issued = authority.issue_cert("vae.example")
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    issued.private_key_pem.write_to_path(str(key))
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    flags = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    with serving(tiny_root, "--address", f"unix:{place}", *flags):
        tls = TLSConfig(root_certificates=authority.cert_pem.bytes(), server_name="vae.example")
        assert len(sample(f"unix:{place}", tls=tls)) == 2
