"""The reasons for which the service's container does not serve: one line on stderr, and exit code 2."""

import os
import signal
import socket
from pathlib import Path

import pytest
import trustme

from convvae import Client
from support.container import Image, Mount, serving

pytestmark = pytest.mark.timeout(3600)
SOCKET = "unix:/run/vae.sock"


def refusal(image: Image, *mounts: Mount, flags: tuple[str, ...] = ()) -> str:
    """Run the image's own command with more flags, which fails, and return its one line."""
    command = [*image.config["Entrypoint"], *image.config["Cmd"], "--address=127.0.0.1:0"]
    ended = image.run([*command, "--metrics-address=off", *flags], mounts)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.count("\n") == 1
    assert ended.err.startswith("error: ")
    return ended.err.removeprefix("error: ").rstrip("\n")


@pytest.fixture
def run(service_image: Image, tmp_path: Path) -> Mount:
    """A volume for sockets, of the image's user."""
    folder = tmp_path / "run"
    folder.mkdir()
    user, group = service_image.config["User"].split(":")
    os.chown(folder, int(user), int(group))
    return Mount(folder, "/run", writable=True)


def test_a_missing_volume(service_image: Image) -> None:
    """Nothing is mounted at /models."""
    assert refusal(service_image) == ("no model version is published under '/models': export one there first")


def test_a_volume_of_somebody_else(service_image: Image, models: Mount, tmp_path: Path) -> None:
    """The image's user may not list the folder that is mounted."""
    (tmp_path / "models").mkdir(mode=0o700)
    message = refusal(service_image, Mount(tmp_path / "models", "/models"))
    assert "/models" in message
    assert "Permission denied" in message


def test_a_certificate_that_cannot_be_read(service_image: Image, models: Mount, tmp_path: Path) -> None:
    """The key's file is for root alone; or the secret has no such file; or no certificate in it."""
    tls = tmp_path / "tls"
    tls.mkdir()
    issued = trustme.CA().issue_cert("vae.example.com")
    (tls / "tls.crt").write_bytes(issued.cert_chain_pems[0].bytes())
    (tls / "tls.key").write_bytes(issued.private_key_pem.bytes())
    (tls / "tls.key").chmod(0o600)
    (tls / "text").write_text("text\n")
    for certificate, reason in (
        ("tls.crt", "'/mnt/tls.key' cannot be read: Permission denied"),
        ("absent", "'/mnt/absent' cannot be read: No such file or directory"),
        ("text", "'/mnt/tls.key' cannot be read: Permission denied"),
    ):
        flags = (f"--tls-certificate=/mnt/{certificate}", "--tls-key=/mnt/tls.key")
        assert reason in refusal(service_image, models, Mount(tls, "/mnt"), flags=flags)
    (tls / "tls.key").chmod(0o644)
    flags = ("--tls-certificate=/mnt/text", "--tls-key=/mnt/tls.key")
    message = refusal(service_image, models, Mount(tls, "/mnt"), flags=flags)
    assert "'/mnt/text' has no certificate in PEM" in message


def test_a_port_in_use(service_image: Image, models: Mount) -> None:
    """Another program listens at the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        message = refusal(service_image, models, flags=(f"--address={address}",))
    assert message == (
        f"address {address} cannot be used: another program listens there; choose another with --address"
    )


def test_a_live_socket_is_kept_and_a_dead_one_replaced(
    service_image: Image, models: Mount, run: Mount, tmp_path: Path
) -> None:
    """A second container disturbs no caller of the first; after a container that was killed, one starts."""
    target = f"unix:{run.source}/vae.sock"
    mounts = [models, run]
    flags = (f"--address={SOCKET}", "--socket-mode=666")
    with serving(service_image, mounts, tmp_path / "log", *flags) as server, Client(target) as vae:
        assert len(vae.sample(2).images) == 2
        assert refusal(service_image, *mounts, flags=flags) == (
            f"address {SOCKET} cannot be used: another program listens there; choose another with --address"
        )
        assert len(vae.sample(2).images) == 2
        os.kill(server.pid, signal.SIGKILL)
        server.process.wait(10)
        assert (run.source / "vae.sock").is_socket()
    with serving(service_image, mounts, tmp_path / "log", *flags) as server, Client(target) as vae:
        assert len(vae.sample(2).images) == 2
        assert server.stop() == 0
    assert list(run.source.iterdir()) == []
