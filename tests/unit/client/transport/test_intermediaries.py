"""Answers that no convvae server gave: pages, resets, and servers of other kinds."""

import socket
from contextlib import ExitStack
from typing import Any

import grpc
import numpy as np
import pytest

import convvae
from convvae import AsyncClient, Client, RetryConfig, TLSConfig
from convvae.transport.connection_faults import find_connection_fault
from convvae.transport.proxies import describe_proxy
from support.intermediary import Answer, closes, http2_answer, intermediary, plain_answer, resets
from support.spoilt_servicer import Servicer, serving

PAGE = http2_answer({":status": "200", "content-type": "text/html"}, b"<html>sign in</html>")
NO_STATUS = http2_answer({":status": "200", "content-type": "application/grpc"}, b"", b"\0\x01x\x01y")
CUT = http2_answer({":status": "200", "content-type": "application/grpc"}, b"\0\0\0\0\x05ab")
BETWEEN = "a proxy or another program between answered, not the server: "
QUICK = RetryConfig(retries=2, backoff_s=0.001)


def status(number: int) -> Answer:
    return http2_answer({":status": str(number), "content-type": "text/html"}, b"<html>")


@pytest.mark.parametrize(
    ("answer", "kind", "words", "requests"),
    [
        (PAGE, convvae.Unavailable, BETWEEN + "the answer has no gRPC status", 3),
        (NO_STATUS, convvae.Unavailable, BETWEEN + "the answer has no gRPC status", 3),
        (CUT, convvae.Unavailable, BETWEEN + "the answer has no gRPC status", 3),
        *((status(n), convvae.Unavailable, f"{BETWEEN}HTTP {n}", 3) for n in (302, 404, 500, 502, 503, 504)),
        *((status(n), convvae.AccessDenied, f"{BETWEEN}HTTP {n}", 1) for n in (401, 403, 407)),
        (status(413), convvae.MessageTooLarge, f"{BETWEEN}HTTP 413", 1),
        (resets(2), convvae.Unavailable, f"{BETWEEN}it reset the request with INTERNAL_ERROR", 3),
        (resets(1), convvae.Unavailable, f"{BETWEEN}it reset the request with PROTOCOL_ERROR", 3),
        (resets(11), convvae.Unavailable, f"{BETWEEN}it reset the request with ENHANCE_YOUR_CALM", 3),
        (resets(7), convvae.Unavailable, "the request was reset with REFUSED_STREAM", 3),
        (resets(8), convvae.Unavailable, "the request was reset with CANCEL", 3),
        (closes, convvae.Unavailable, "the connection ended during the request", 3),
    ],
)
def test_an_answer_of_another_is_the_connections_fault(
    answer: Answer, kind: type[convvae.ConvvaeError], words: str, requests: int
) -> None:
    """It is retried where that may help, and the error names the target once and who answered."""
    with intermediary(answer) as (target, seen), Client(target, timeout_s=10, retry=QUICK) as client:
        with pytest.raises(kind) as caught:
            client.models()
        assert len(seen) == requests
    assert type(caught.value) is kind
    assert caught.value.message.startswith(f"{target}: {words}")
    assert str(caught.value).count(target) == 1


async def test_the_async_client_retries_after_a_page() -> None:
    """`AsyncClient` translates and retries alike."""
    with intermediary(PAGE, resets(2)) as (target, seen):
        async with AsyncClient(target, timeout_s=10, retry=QUICK) as client:
            with pytest.raises(convvae.Unavailable, match="INTERNAL_ERROR"):
                await client.models()
    assert len(seen) == 3


def test_health_asks_once() -> None:
    """`health` is never retried."""
    with (
        intermediary(PAGE) as (target, seen),
        Client(target, timeout_s=10) as client,
        pytest.raises(convvae.Unavailable),
    ):
        client.health()
    assert len(seen) == 1


def free_port(family: socket.AddressFamily, host: str) -> int:
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("http", {}, "another kind of server answered, such as HTTP/1, not a convvae server; check the port"),
        ("http", {"tls": TLSConfig()}, "the server does not use TLS on this port"),
        ("grpc", {"tls": TLSConfig()}, "the server does not use TLS on this port"),
        ("refused", {}, "connection refused: no server listens there; check the address"),
        ("refused6", {}, "connection refused: no server listens there; check the address"),
        ("name", {}, "the name is not found; check the address"),
        ("socket", {}, "no server listens there: the socket does not exist"),
    ],
)
def test_reasons_of_a_connection_that_fails(kind: str, settings: dict[str, Any], words: str) -> None:
    """The reason is true, and stands behind the address as it was typed, once."""
    with ExitStack() as stack:
        if kind == "http":
            target = stack.enter_context(intermediary(plain_answer(b"no")))[0]
        elif kind == "grpc":
            target = stack.enter_context(serving(Servicer()))
        elif kind == "refused":
            target = f"127.0.0.1:{free_port(socket.AF_INET, '127.0.0.1')}"
        elif kind == "refused6":
            if not socket.has_dualstack_ipv6():
                pytest.skip("no IPv6 here")
            target = f"[::1]:{free_port(socket.AF_INET6, '::1')}"
        else:
            target = {"name": "nobody.invalid:5", "socket": "unix:/nonexistent/x.sock"}[kind]
        client = stack.enter_context(Client(target, timeout_s=5, **settings))
        with pytest.raises(convvae.Unavailable) as caught:
            client.health()
    assert caught.value.message.startswith(f"{target}: {words}")
    assert "%5B" not in caught.value.message
    assert caught.value.message.count(target) == 1


def test_a_server_of_other_methods_is_named() -> None:
    """Another gRPC server has no such method."""
    with (
        serving(Servicer()) as target,
        Client(target) as client,
        pytest.raises(convvae.Unimplemented, match=f"^{target}: .*no convvae server"),
    ):
        client.health()


@pytest.mark.parametrize(
    ("exceptions", "target", "used"),
    [
        ("", "vae.example:5", True),
        ("*", "vae.example:5", True),
        ("vae.example:5", "vae.example:5", True),
        ("*.example", "vae.example:5", True),
        (".example", "vae.example:5", False),
        ("other, VAE.example", "vae.example:5", False),
        ("10.0.0.0/8", "10.1.2.3:5", False),
        ("10.0.0.0/8", "11.1.2.3:5", True),
        ("", "localhost:5", False),
        ("", "[2001:db8::1]:5", True),
    ],
)
def test_the_proxy_is_the_one_that_grpc_uses(
    monkeypatch: pytest.MonkeyPatch, exceptions: str, target: str, used: bool
) -> None:
    """The description follows gRPC's reading of the variables, and never shows a password."""
    for name in ("grpc_proxy", "http_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://user:s3cret@proxy.example:3128")
    monkeypatch.setenv("no_proxy", exceptions)
    text = describe_proxy(target)
    assert bool(text) == used
    assert "s3cret" not in text
    if used:
        assert text.startswith("the connection goes through the proxy proxy.example:3128 of https_proxy")
        assert ("no_proxy" in text) == bool(exceptions)


def test_an_error_behind_a_proxy_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that refuses is named with its variable, also where `no_proxy` has a form that gRPC ignores."""
    monkeypatch.setenv("no_proxy", "*")
    with intermediary(plain_answer(b"no")) as (proxy, _):
        monkeypatch.setenv("https_proxy", f"http://{proxy}")
        with (
            Client("192.0.2.1:5", timeout_s=5, retry=QUICK) as client,
            pytest.raises(convvae.Unavailable) as caught,
        ):
            client.encode(np.zeros((1, 4, 3, 1), np.uint8))
    assert caught.value.message == (
        f"192.0.2.1:5: the proxy answered HTTP 400; the connection goes through the proxy {proxy} of "
        "https_proxy; no_proxy does not name 192.0.2.1 as gRPC reads it"
    )


def test_a_socket_of_somebody_else() -> None:
    """GRPC's words for a refusal by the file system are its own; these say what to do."""
    details = "connect failed: addr: unix:/run/vae.sock error: Permission denied"
    fault = find_connection_fault(grpc.StatusCode.UNAVAILABLE, details, "unix:/run/vae.sock", answered=False)
    assert fault is not None
    assert fault.kind is convvae.Unavailable
    assert fault.reason.startswith("this user may not call through the socket; ask for its group")
