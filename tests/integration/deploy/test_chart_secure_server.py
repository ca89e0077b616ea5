"""The container of the chart with certificates and tokens, started here: its own probes find it healthy."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from convvae import AccessDenied, Client, RetryConfig, TLSConfig
from support.chart import only, rendered, server_of
from support.serving import ServerProcess, serving

TOKEN = "a-token-of-the-secret"
NAME = "vae.example.com"


@pytest.fixture(scope="module")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contents of the secrets `vae-tls` and `vae-tokens`, as folders."""
    folder = tmp_path_factory.mktemp("convvae")
    authority = trustme.CA()
    issued = authority.issue_cert(NAME)
    (folder / "tls").mkdir()
    (folder / "tokens").mkdir()
    issued.private_key_pem.write_to_path(str(folder / "tls" / "tls.key"))
    issued.cert_chain_pems[0].write_to_path(str(folder / "tls" / "tls.crt"))
    authority.cert_pem.write_to_path(str(folder / "tls" / "ca.crt"))
    (folder / "tokens" / "tokens").write_text(f"{TOKEN}\n")
    return folder


def moved(words: list[str], mounts: Path, target: str = "") -> list[str]:
    """Return a command of the chart with the folders and the server of this test."""
    placed = [word.replace("/etc/convvae", str(mounts)) for word in words]
    return [f"--target={target}" if word.startswith("--target=") else word for word in placed]


@pytest.fixture(scope="module")
def server(tiny_root: Path, mounts: Path) -> Iterator[ServerProcess]:
    """The server by the container's arguments and variables, on loopback, with models of the test."""
    container = server_of(rendered("secure"))
    command, *flags = moved(container["args"], mounts)
    assert command == "run"
    own = ("--models", "--address", "--metrics-address", "--device")
    kept = [flag for flag in flags if flag.partition("=")[0] not in own]
    variables = {one["name"]: one["value"] for one in container["env"] if one["name"].startswith("CONVVAE_")}
    with serving(tiny_root, *kept, environ=variables) as started:
        yield started


@pytest.mark.one_front
def test_probes_find_the_server_healthy(server: ServerProcess, mounts: Path) -> None:
    """Each probe, and the command of `helm test`, succeeds with the secret's authority without a token."""
    objects = rendered("secure")
    container = server_of(objects)
    probes = ("startupProbe", "readinessProbe", "livenessProbe")
    commands = [container[probe]["exec"]["command"] for probe in probes]
    commands += [only(objects, "Pod")["spec"]["containers"][0]["command"]]
    for program, *words in commands:
        assert program == "convvae"
        done = subprocess.run(
            [sys.executable, "-m", "convvae", *moved(words, mounts, server.target)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), words
    assert len(commands) == 4


@pytest.mark.one_front
def test_calls_need_the_token_of_the_secret(server: ServerProcess, mounts: Path) -> None:
    """A caller with the token is answered, and one without it is not."""
    trust = TLSConfig(root_certificates=(mounts / "tls" / "ca.crt").read_bytes(), server_name=NAME)
    with Client(server.target, tls=trust, token=TOKEN) as vae:
        assert len(vae.sample(2).images) == 2
    with (
        Client(server.target, tls=trust, retry=RetryConfig(retries=0)) as vae,
        pytest.raises(AccessDenied),
    ):
        vae.sample(2)
