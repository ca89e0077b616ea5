"""Both clients against a server that fails on purpose."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

import convvae
from convvae import AsyncClient, Client, InvalidInput, RetryConfig
from convvae.v1 import vae_pb2_grpc
from support.waiting import wait_until

from .conftest import Invoke
from .servicer import LATENT_DIM, Refusal, Servicer, serving

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def images(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return images whose values are their index."""
    array = np.zeros((count, 4, 3, 1), np.uint8)
    array[:] = np.arange(count)[:, None, None, None]
    return array


def fail_first(times: int, method: str, code: grpc.StatusCode, **details: Any) -> Callable[[str, Any], None]:
    """Return a hook that refuses the first calls of a method."""
    left = [times]
    lock = threading.Lock()

    def before(called: str, _request: Any) -> None:
        with lock:
            if called == method and left[0] > 0:
                left[0] -= 1
                raise Refusal(code, "on purpose", **details)

    return before


def test_chunks_come_back_in_order(invoke: Invoke, servicer: Servicer) -> None:
    """A long call is split, `max_in_flight` chunks are in flight, and rows keep their order."""
    servicer.delay_s = 0.02
    result = invoke("encode", images(33), include_log_variance=True, settings={"max_in_flight": 3})
    assert result.mean[:, 0].tolist() == list(range(33))
    assert result.log_variance.shape == (33, LATENT_DIM)
    assert (result.model, result.version, result.precision) == ("tiny", 1, "fp32")
    assert servicer.count("Encode") == 7
    assert 2 <= servicer.most_in_flight <= 3
    result.mean[0] = 5  # The caller owns the arrays.


def test_message_bytes_cut_a_call(invoke: Invoke, servicer: Servicer) -> None:
    """A call is split by bytes if they reach their limit before the rows."""
    servicer.max_rows, servicer.max_message_bytes = 1000, 1024 + 12 * 4
    result = invoke("reconstruct", images(9))
    assert result.images[:, 0, 0, 0].tolist() == list(range(9))
    counts = [request.pixels.count for method, request in servicer.seen if method == "Reconstruct"]
    assert sorted(counts) == [1, 4, 4]


def test_sample_is_cut_with_one_seed_and_first_row(invoke: Invoke, servicer: Servicer) -> None:
    """The chunks of a sample share one seed, drawn if none was given, and continue each other's rows."""
    result = invoke("sample", 12, first_row=3, temperature=2.0)
    requests = [request for method, request in servicer.seen if method == "Sample"]
    assert sorted((r.first_row, r.count) for r in requests) == [(3, 5), (8, 5), (13, 2)]
    assert {r.seed for r in requests} == {result.seed}
    assert 0 <= result.seed < 2**53
    assert result.latents[:, 0].tolist() == [2.0 * row for row in range(3, 15)]


def test_seed_of_a_small_sample_is_the_servers(invoke: Invoke, servicer: Servicer) -> None:
    """One request without a seed leaves the seed to the server; temperature 0 is sent as such."""
    assert invoke("sample", 2).seed == 12345
    assert invoke("sample", 2, seed=2**64 - 1).seed == 2**64 - 1
    assert not invoke("sample", 2, temperature=0).latents.any()


def test_draws_count_as_rows(invoke: Invoke, servicer: Servicer) -> None:
    """`score` with draws is split so that rows times draws stay under the limit, with one seed."""
    result = invoke("score", images(5), num_samples=2)
    requests = [request for method, request in servicer.seen if method == "Score"]
    assert sorted((r.first_row, r.pixels.count) for r in requests) == [(0, 2), (2, 2), (4, 1)]
    assert {r.seed for r in requests} == {result.seed}
    assert result.distortion.tolist() == [0, 1, 2, 3, 4]
    assert result.elbo.dtype == np.float32
    assert invoke("score", images(2)).seed is None


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


def test_all_chunks_are_of_one_version(invoke: Invoke, servicer: Servicer) -> None:
    """If the server changes its default version, a split call keeps the version of its first chunk."""
    servicer.versions = (1, 2)

    def before(method: str, _request: Any) -> None:
        if method == "Encode":
            servicer.versions = (1, 2, 3)

    servicer.before = before
    assert invoke("encode", images(20)).version == 2
    assert {request.model.version for method, request in servicer.seen if method == "Encode"} == {2}


def test_version_that_leaves_during_a_call_is_named(invoke: Invoke, servicer: Servicer) -> None:
    """If the version is unloaded before the last chunk, the error says so."""

    def before(method: str, _request: Any) -> None:
        if method == "Encode" and servicer.count("Encode") >= 6:
            servicer.versions = (2,)

    servicer.before = before
    with pytest.raises(convvae.VersionGone, match="version 1 of model 'tiny' was replaced by 2"):
        invoke("encode", images(40))


def test_version_of_the_caller_is_sent(invoke: Invoke, servicer: Servicer) -> None:
    """`model=` with a version gets that version or fails as the server says."""
    servicer.versions = (1, 2)
    assert invoke("encode", images(7), model="tiny@1").version == 1
    with pytest.raises(convvae.NotPossible, match="not loaded"):
        invoke("encode", images(7), model="tiny@9")


def test_limits_are_asked_once(target: str, servicer: Servicer) -> None:
    """The description of a model is fetched once, and again when a call is split."""
    with Client(target) as client:
        for _ in range(3):
            client.encode(images(2))
        assert servicer.count("GetModel") == 1
        client.encode(images(9))
        assert servicer.count("GetModel") == 2
        client.encode(images(9), model="tiny@1")
        client.encode(images(9), model="tiny@1")
        assert servicer.count("GetModel") == 3


def test_limits_that_shrank_are_asked_again(target: str, servicer: Servicer) -> None:
    """After a refusal the client splits again if the limits have changed; otherwise it is final."""
    with Client(target) as client:
        client.encode(images(5))
        servicer.max_rows = 2

        def before(method: str, request: Any) -> None:
            if method == "Encode" and request.pixels.count > servicer.max_rows:
                raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "too many rows")

        servicer.before = before
        assert client.encode(images(5)).mean[:, 0].tolist() == [0, 1, 2, 3, 4]
        servicer.before = fail_first(10, "Encode", grpc.StatusCode.INVALID_ARGUMENT)
        called = servicer.count("Encode")
        with pytest.raises(InvalidInput, match="on purpose"):
            client.encode(images(1))
        assert servicer.count("Encode") == called + 1


def test_model_that_changed_is_asked_again(target: str, servicer: Servicer) -> None:
    """If a new version has another latent dimension, a client that knows the old one still works."""
    with Client(target) as client:
        z = client.encode(images(3)).mean
        servicer.versions, servicer.latent_dim = (1, 2), 6
        assert client.encode(images(3)).mean.shape == (3, 6)
        with pytest.raises(InvalidInput, match=r"shape is \(3, 2\); model 'tiny' takes \(N, 6\)"):
            client.decode(z)
        servicer.latent_dim = 7
        assert client.decode(np.zeros((2, 7), np.float32)).images.shape == (2, 4, 3, 1)


def test_arguments_that_do_not_fit_are_not_sent(invoke: Invoke, servicer: Servicer) -> None:
    """Images and vectors of another size than the model's are refused by the client."""
    with pytest.raises(InvalidInput, match=r"takes \(N, 4, 3, 1\)"):
        invoke("encode", np.zeros((2, 5, 3, 1), np.uint8))
    with pytest.raises(InvalidInput, match=r"one image; a batch of one is images\[np.newaxis\]"):
        invoke("encode", np.zeros((4, 3, 1), np.uint8))
    with pytest.raises(InvalidInput, match=r"takes \(N, 2\)"):
        invoke("decode", np.zeros((2, 3), np.float32))
    assert {method for method, _ in servicer.seen} == {"GetModel"}


def test_reply_that_contradicts_the_contract(target: str, servicer: Servicer) -> None:
    """A reply of the wrong size is an error of the server, not an array of the wrong shape."""
    servicer.pixels = lambda firsts: Servicer.pixels(servicer, list(firsts)[1:])  # type: ignore[method-assign]
    with Client(target) as client, pytest.raises(convvae.BadReply, match="images of shape"):
        client.sample(3)


def test_token_and_compression_travel(invoke: Invoke, servicer: Servicer) -> None:
    """The token is in every request's metadata; compressed requests arrive."""
    invoke("encode", images(2), settings={"token": "s3cret", "compression": "gzip"})
    assert [metadata.get("authorization") for metadata in servicer.metadata] == ["Bearer s3cret"] * 2


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


def test_closed_client_says_so(target: str) -> None:
    """A call after close is refused."""
    client = Client(target)
    client.close()
    with pytest.raises(convvae.ClientClosed):
        client.encode(images(1))


async def test_closed_async_client_says_so(target: str) -> None:
    """A call after close is refused by the asynchronous client too."""
    client = AsyncClient(target)
    await client.close()
    with pytest.raises(convvae.ClientClosed):
        await client.encode(images(1))


def test_close_during_a_call(target: str, servicer: Servicer) -> None:
    """Closing the client ends its calls with Cancelled, one request or many."""
    servicer.delay_s = 5.0
    for count in (1, 20):
        client = Client(target)
        client.model()
        threading.Timer(0.2, client.close).start()
        with pytest.raises(convvae.Cancelled):
            client.encode(images(count))


async def test_async_close_during_a_call(target: str, servicer: Servicer) -> None:
    """Closing the asynchronous client ends its calls with Cancelled too."""
    servicer.delay_s = 5.0
    for count in (1, 20):
        client = AsyncClient(target)
        await client.model()
        task = asyncio.create_task(client.encode(images(count)))
        await asyncio.sleep(0.2)
        await client.close()
        with pytest.raises(convvae.Cancelled):
            await task


async def test_cancelled_task_cancels_its_requests(target: str, servicer: Servicer) -> None:
    """Cancelling a task raises CancelledError in it, and the server sees its requests cancelled."""
    servicer.delay_s = 5.0
    async with AsyncClient(target) as client:
        task = asyncio.create_task(client.encode(images(100)))
        await asyncio.to_thread(wait_until, lambda: servicer.in_flight == 4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(wait_until, lambda: servicer.cancelled == 4)


@pytest.mark.usefixtures("interruptible")
def test_interrupt_cancels_the_requests(target: str, servicer: Servicer) -> None:
    """Ctrl-C ends a call at once and leaves nothing running on the server."""
    servicer.delay_s = 5.0
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    for count in (1, 100):
        with Client(target) as client:
            client.model()
            timer = threading.Timer(0.3, lambda: signal.pthread_kill(main_thread, signal.SIGINT))
            timer.start()
            start = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                client.encode(images(count))
            assert time.monotonic() - start < 3
            wait_until(lambda: servicer.in_flight == 0)


def test_threads_share_a_client(target: str, servicer: Servicer) -> None:
    """Several threads may call at the same time, and each gets its own rows."""
    results: dict[int, list[float]] = {}
    with Client(target) as client:

        def work(first: int) -> None:
            rows = images(12) + np.uint8(first)
            results[first] = client.encode(rows).mean[:, 0].tolist()

        threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 80, 10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {first: list(range(first, first + 12)) for first in range(0, 80, 10)}
