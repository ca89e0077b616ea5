"""Commands that call a service with certificates and tokens."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from support.papers import Papers
from support.serving import ServerProcess, serving

pytestmark = pytest.mark.one_front


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of server and caller, and an image."""
    folder = tmp_path_factory.mktemp("papers")
    papers = Papers(folder)
    own = papers.authority.issue_cert("caller.example")
    own.private_key_pem.write_to_path(str(folder / "own.key"))
    own.cert_chain_pems[0].write_to_path(str(folder / "own.pem"))
    (folder / "token").write_text("s3cret\n")
    (folder / "wrong-token").write_text("other\n")
    (folder / "images").mkdir()
    pixels = np.arange(48, dtype=np.uint8).reshape(8, 6)
    Image.fromarray(pixels).save(folder / "images" / "a.png")
    return folder


@pytest.fixture(scope="module")
def server(tiny_root: Path, folder: Path) -> Iterator[ServerProcess]:
    """A server that asks for a certificate and a token."""
    flags = ["--tls-certificate", folder / "server.pem", "--tls-key", folder / "server.key"]
    flags += ["--tls-client-ca", folder / "clients.pem", "--token-file", folder / "token"]
    with serving(tiny_root, *map(str, flags)) as running:
        yield running


TRUST = ["--tls-ca", "clients.pem"]
OWN = ["--tls-certificate", "own.pem", "--tls-key", "own.key"]
TOKEN = ["--token-file", "token"]


def run(module: str, *words: str, cwd: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_bulk_embedding_shows_certificate_and_token(server: ServerProcess, folder: Path) -> None:
    """A run and a search through such a service are as through any other."""
    secure = ["--target", server.target, *TRUST, *OWN]
    embed = "convvae_service.pipeline"
    done = run(embed, "run", "images", "z.parquet", *secure, *TOKEN, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(folder / "z.parquet").column("id").to_pylist() == ["a.png"]
    given = {"CONVVAE_TOKEN_FILE": "token"}
    done = run(embed, "neighbors", "z.parquet", "images/a.png", "--json", *secure, cwd=folder, **given)
    assert done.returncode == 0, done.stderr
    assert '"id": "a.png"' in done.stdout


def test_the_client_shows_its_certificate(server: ServerProcess, folder: Path) -> None:
    """The command line has what the Python client has."""
    words = ["sample", "--count", "2", "--out", "s.npy", "--target", server.target, *TRUST, *OWN, *TOKEN]
    done = run("convvae", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert np.load(folder / "s.npy").shape == (2, 8, 6, 1)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([*TRUST, *OWN], 2, "a valid bearer token is needed"),
        ([*TRUST, *OWN, "--token-file", "wrong-token"], 2, "check --token-file"),
        ([*TRUST, *OWN, "--token-file", "none"], 2, "Invalid value for --token-file: 'none': No such file"),
        ([*TRUST, "--tls-certificate", "own.pem"], 2, "Invalid value for --tls-certificate: needs --tls-key"),
        ([*TRUST, "--tls-key", "own.key"], 2, "Invalid value for --tls-key: needs --tls-certificate"),
        ([*TRUST, *TOKEN], 3, ""),
        (["--tls", *OWN, *TOKEN], 3, "--tls-ca"),
        ([], 3, "--tls"),
    ],
)
def test_what_is_missing_is_named(
    server: ServerProcess, folder: Path, words: list[str], code: int, message: str
) -> None:
    """The refusal is one line in the words of the command, before anything is written."""
    words = ["run", "images", "x.parquet", "--target", server.target, *words]
    done = run("convvae_service.pipeline", *words, cwd=folder)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
    assert message in done.stderr
    assert not (folder / "x.parquet").exists()


def test_a_bundle_needs_no_connection(tiny_root: Path, folder: Path) -> None:
    """Options of a connection are refused, but a variable that is set for other commands is not."""
    words = ["run", "images", "own.parquet", "--bundle", str(tiny_root / "tiny")]
    embed = "convvae_service.pipeline"
    done = run(embed, *words, *TRUST, cwd=folder)
    assert (done.returncode, done.stderr) == (2, "error: --tls-ca needs --target\n")
    done = run(embed, *words, cwd=folder, CONVVAE_TOKEN_FILE="none")
    assert done.returncode == 0, done.stderr
