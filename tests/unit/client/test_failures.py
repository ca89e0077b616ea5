"""Both clients against a server that fails on purpose."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import convvae
from convvae import Client, InvalidInput, RetryConfig
from convvae.v1 import vae_pb2_grpc
from support.spoilt_servicer import Invoke, Refusal, Servicer, fail_first, images, serving
from support.waiting import wait_until

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("code", [UNAVAILABLE, grpc.StatusCode.CANCELLED])
def test_unavailable_is_retried(invoke: Invoke, servicer: Servicer, code: grpc.StatusCode) -> None:
    """A request is retried if the server is briefly away, or cancels calls because it stops."""
    servicer.before = fail_first(3, "Encode", code)
    assert invoke("encode", images(12)).mean[:, 0].tolist() == list(range(12))
    assert servicer.count("Encode") == 6


def test_retries_are_bounded(invoke: Invoke, servicer: Servicer) -> None:
    """Retries end if the server stays away, and `retries=0` sends one request."""
    servicer.before = fail_first(10**6, "Encode", UNAVAILABLE)
    with pytest.raises(convvae.Unavailable, match="on purpose") as caught:
        invoke("encode", images(1), settings={"retry": RetryConfig(retries=2, backoff_s=0.001)})
    assert caught.value.request_id == "id-7"
    assert servicer.count("Encode") == 3
    with pytest.raises(convvae.Unavailable):
        invoke("encode", images(1), settings={"retry": RetryConfig(retries=0)})
    assert servicer.count("Encode") == 4


def test_delay_of_the_server_is_honoured(invoke: Invoke, servicer: Servicer) -> None:
    """An overloaded server gets the retry after its retry delay, not before."""
    servicer.before = fail_first(1, "Encode", grpc.StatusCode.RESOURCE_EXHAUSTED, retry_delay_s=0.2)
    start = time.monotonic()
    invoke("encode", images(1))
    assert time.monotonic() - start >= 0.2


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.DEADLINE_EXCEEDED, convvae.DeadlineExceeded),
        (grpc.StatusCode.INTERNAL, convvae.ServerFault),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, convvae.MessageTooLarge),
        (grpc.StatusCode.UNAUTHENTICATED, convvae.AccessDenied),
    ],
)
def test_other_failures_are_not_retried(
    invoke: Invoke, servicer: Servicer, code: grpc.StatusCode, kind: type[convvae.ConvvaeError]
) -> None:
    """If a retry cannot help, one request is sent and its error is raised."""
    servicer.before = fail_first(1, "Encode", code)
    with pytest.raises(kind, match="on purpose") as caught:
        invoke("encode", images(1))
    assert (caught.value.code, servicer.count("Encode")) == (code.name, 1)


def test_first_error_cancels_the_rest(invoke: Invoke, servicer: Servicer) -> None:
    """One refused chunk ends the call: chunks in flight are cancelled, and the others are never sent."""
    servicer.delay_s = 5.0

    def before(method: str, request: Any) -> None:
        if method == "Encode" and request.pixels.data[0] == 5:
            time.sleep(0.1)
            raise Refusal(
                grpc.StatusCode.INVALID_ARGUMENT,
                "files[1]: no image",
                violations={"files[1]": "no image", "files[3]": ""},
            )

    servicer.before = before
    start = time.monotonic()
    with pytest.raises(InvalidInput, match=r"files\[6\]: no image") as caught:
        invoke("encode", images(100))
    assert time.monotonic() - start < 3
    assert [str(v) for v in caught.value.violations] == ["files[6]: no image", "files[8]: no image"]
    assert servicer.count("Encode") == 4
    wait_until(lambda: servicer.cancelled == 3)


def test_timeout_bounds_the_call(invoke: Invoke, servicer: Servicer) -> None:
    """A server that does not answer in time raises an error that is a TimeoutError too."""
    servicer.delay_s = 5.0
    start = time.monotonic()
    with pytest.raises(convvae.DeadlineExceeded, match="raise timeout_s") as caught:
        invoke("encode", images(20), timeout_s=0.3)
    assert isinstance(caught.value, TimeoutError)
    assert 0.2 < time.monotonic() - start < 2


def test_reply_that_contradicts_the_contract(target: str, servicer: Servicer) -> None:
    """A reply of the wrong size is an error of the server, not an array of the wrong shape."""
    servicer.pixels = lambda firsts: Servicer.pixels(servicer, list(firsts)[1:])  # type: ignore[method-assign]
    with Client(target) as client, pytest.raises(convvae.BadReply, match="images of shape"):
        client.sample(3)


def test_nobody_there() -> None:
    """A target without a server raises Unavailable, and health does not retry."""
    with serving(Servicer()) as gone:
        pass
    with Client(gone, timeout_s=5, retry=RetryConfig(backoff_s=0.001)) as client:
        with pytest.raises(convvae.Unavailable, match=f"^{gone}: "):
            client.health()
        with pytest.raises(convvae.Unavailable):
            client.encode(images(1))


def test_server_that_comes_back_is_reached(servicer: Servicer) -> None:
    """Retries outlast gRPC's own pause before it connects again."""
    with serving(servicer) as target:
        port = target.rpartition(":")[2]
    server = grpc.server(ThreadPoolExecutor(2))
    vae_pb2_grpc.add_VaeServiceServicer_to_server(servicer, server)
    with Client(f"127.0.0.1:{port}", timeout_s=20, retry=RetryConfig(retries=9)) as client:
        with pytest.raises(convvae.Unavailable):
            client.encode(images(1), timeout_s=0.05)
        timer = threading.Timer(0.5, lambda: (server.add_insecure_port(f"127.0.0.1:{port}"), server.start()))
        timer.start()
        try:
            assert client.encode(images(1)).version == 1
        finally:
            timer.join()
            server.stop(None).wait(5)
