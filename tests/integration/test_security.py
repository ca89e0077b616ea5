"""TLS, client certificates and tokens of a real server, and their renewal while it runs."""

import datetime
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import convvae
from convvae import Client, RetryConfig, TLSConfig
from support.papers import Papers
from support.serving import ServerProcess, serving
from support.waiting import wait_until

NO_RETRY = RetryConfig(retries=0)
NO_TEMPORARY_FOLDER = """
import tempfile
tempfile._candidate_tempdir_list = lambda: ['/proc']
from convvae_service.__main__ import main
main()
"""


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


def is_answered(target: str, tls: TLSConfig | None) -> bool:
    """Tell whether a new connection gets an answer."""
    with Client(target, tls=tls, retry=NO_RETRY, timeout_s=5) as vae:
        try:
            return bool(vae.sample(1).images.shape[0] == 1)
        except (convvae.Unavailable, convvae.DeadlineExceeded):
            return False


def test_tls_serves_those_who_trust_it(tiny_root: Path, papers: Papers) -> None:
    """A client with the authority is answered; one in plain text, or with another authority, is not."""
    with serving(tiny_root, *papers.flags) as server:
        with Client(server.target, tls=papers.trust()) as vae:
            assert vae.sample(2).images.shape == (2, 8, 6, 1)
            assert vae.health() is convvae.Health.SERVING
        stranger = TLSConfig(root_certificates=trustme.CA().cert_pem.bytes())
        for tls in (None, stranger):
            assert not is_answered(server.target, tls)


def test_client_certificates_are_asked_for(tiny_root: Path, papers: Papers) -> None:
    """With authorities for clients, only a caller with a certificate of theirs is answered."""
    with serving(tiny_root, *papers.flags, "--tls-client-ca", str(papers.client_ca)) as server:
        assert is_answered(server.target, papers.trust(papers.authority.issue_cert("caller.example")))
        for stranger in (None, trustme.CA().issue_cert("caller.example")):
            assert not is_answered(server.target, papers.trust(stranger))


def test_a_renewed_certificate_is_used_without_a_restart(tiny_root: Path, papers: Papers) -> None:
    """New connections get the new certificate; a file that cannot be used leaves the old one in place."""
    with serving(tiny_root, *papers.flags) as server:
        old = papers.trust()
        papers.certificate.write_text("no certificate")

        assert is_answered(server.target, old)
        assert server.wait_for("changed files cannot be used: the old content stays", 10)
        papers.authority = trustme.CA()
        papers.issue()
        wait_until(lambda: is_answered(server.target, papers.trust()))
        assert not is_answered(server.target, old)


class ReadOnlyServer(ServerProcess):
    """A server that finds no folder for temporary files."""

    program = ("-c", NO_TEMPORARY_FOLDER)


def test_certificates_need_no_folder_for_temporary_files(tiny_root: Path, papers: Papers) -> None:
    """A server serves and renews where nothing can be written; an expired pair replaces no good one."""
    server = ReadOnlyServer(tiny_root, *papers.flags)
    try:
        good = papers.trust()
        assert is_answered(server.target, good)
        papers.issue(not_after=datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1))
        assert is_answered(server.target, good)
        line = server.wait_for("changed files cannot be used: the old content stays", 10)
        assert "server.pem', valid until " in line["error"]
        assert "has expired: renew it" in line["error"]
        papers.authority = trustme.CA()
        papers.issue()
        wait_until(lambda: is_answered(server.target, papers.trust()))
        assert server.stop() == 0
    finally:
        server.stop()


def is_accepted(target: str, token: str) -> bool:
    """Tell whether a call with this token is answered."""
    with Client(target, token=token) as vae:
        try:
            return bool(vae.sample(1).images.shape[0] == 1)
        except convvae.AccessDenied:
            return False


@pytest.mark.usefixtures("each_front")
def test_tokens(tiny_root: Path, tmp_path: Path) -> None:
    """A call needs one of the tokens, or is counted; health needs none, reflection does; none is logged."""
    tokens = tmp_path / "tokens"
    tokens.write_text("# two callers\nfirst-secret\n\nsecond-secret\n")
    with serving(tiny_root, "--token-file", str(tokens)) as server:
        for token in ("first-secret", "second-secret"):
            with Client(server.target, token=token) as vae:
                assert vae.sample(1).images.shape[0] == 1
        for wrong in (None, "third-secret", "first-secre", "first-secret2", "# two callers"):
            with Client(server.target, token=wrong) as vae:
                with pytest.raises(convvae.AccessDenied, match="a valid bearer token is needed") as caught:
                    vae.sample(1)
                assert caught.value.code == "UNAUTHENTICATED"
                logged = server.wait_for("call", 5, request_id=caught.value.request_id)
                assert logged["code"] == "UNAUTHENTICATED"
        with grpc.insecure_channel(server.target) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=5).status == 1
            reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            with pytest.raises(grpc.RpcError) as refused:
                list(reflection.ServerReflectionInfo(iter([request]), timeout=5))
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        refusals = {
            name.split('method="')[1].split('"')[0]: value
            for name, value in server.metrics().items()
            if name.startswith("convvae_calls_total") and 'code="UNAUTHENTICATED"' in name
        }
        assert refusals.pop("ServerReflectionInfo") == 1
        assert sum(refusals.values()) == 5, refusals
        tokens.write_text("third-secret\n")
        wait_until(lambda: is_accepted(server.target, "third-secret"))
        with Client(server.target, token="first-secret") as vae, pytest.raises(convvae.AccessDenied):
            vae.sample(1)
        tokens.unlink()
        with Client(server.target, token="third-secret") as vae:
            assert vae.sample(1).images.shape[0] == 1
        assert server.wait_for("changed files cannot be used: the old content stays", 5)
        server.send(signal.SIGTERM)
        assert server.wait() == 0
    assert "secret" not in str(server.lines) + str(server.noise)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--tls-key", "KEY"), "--tls-certificate and --tls-key belong together: give both or neither"),
        (("--tls-client-ca", "CA"), "--tls-client-ca needs --tls-certificate and --tls-key"),
        (("--tls-certificate", "/no", "--tls-key", "KEY"), "TLS: '/no' cannot be read: No such file or"),
        (
            ("--tls-certificate", "CA", "--tls-key", "KEY"),
            "server.key' does not belong to the certificate in",
        ),
        (("--tls-certificate", "EMPTY", "--tls-key", "KEY"), "empty' has no certificate in PEM"),
        (("--tls-certificate", "CA", "--tls-key", "EMPTY"), "empty' has no private key in PEM"),
        (("--token-file", "/no"), "token file '/no': No such file or directory"),
        (("--token-file", "EMPTY"), "has no token: write one token a line"),
        (
            ("--token-file", "KEY", "--address", "0.0.0.0:0"),
            "tokens would travel in plain text to 0.0.0.0:0: give --tls-certificate and --tls-key, or",
        ),
    ],
)
def test_what_cannot_be_secure_does_not_start(
    tiny_root: Path, papers: Papers, tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    """Files that are missing, empty or of each other's kind, and tokens in plain text, end the start."""
    (tmp_path / "empty").write_text("# nothing\n")
    places = {"KEY": str(papers.key), "CA": str(papers.client_ca), "EMPTY": str(tmp_path / "empty")}
    words = [places.get(word, word) for word in flags]
    command = [sys.executable, "-m", "convvae_service", "run", "--models", str(tiny_root)]
    command += ["--metrics-address", "off", *words]
    if "--address" not in flags:
        command += ["--address", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
