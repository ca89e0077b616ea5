"""Both clients with `coalesce=True`: callers at the same time share requests, and each gets its own rows."""

import _thread
import asyncio
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

import convvae
from convvae import AsyncClient, Client, RetryConfig
from support.spoilt_servicer import Refusal, Servicer, fail_first, images
from support.waiting import wait_until

# Makes calls at the same time on one client, and returns the outcome of each.
Together = Callable[..., list[Any]]
# Method, positional and keyword arguments.
Call = tuple[str, tuple[Any, ...], dict[str, Any]]


def in_threads(target: str, calls: list[Call], **settings: Any) -> list[Any]:
    """Call the methods of one `Client`, each in a thread of its own."""
    outcomes: list[Any] = [None] * len(calls)
    with Client(target, coalesce=True, **settings) as client:

        def work(index: int) -> None:
            method, args, kwargs = calls[index]
            try:
                outcomes[index] = getattr(client, method)(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - the test reads it
                outcomes[index] = error

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return outcomes


def in_tasks(target: str, calls: list[Call], **settings: Any) -> list[Any]:
    """Call the methods of one `AsyncClient`, each in a task of its own."""

    async def main() -> list[Any]:
        async with AsyncClient(target, coalesce=True, **settings) as client:
            running = [getattr(client, method)(*args, **kwargs) for method, args, kwargs in calls]
            return await asyncio.gather(*running, return_exceptions=True)

    return asyncio.run(main())


@pytest.fixture(params=[in_threads, in_tasks], ids=["threads", "tasks"])
def together(request: pytest.FixtureRequest, target: str, servicer: Servicer) -> Together:
    """Make calls at the same time on one client of either kind, of a server with room for all their rows."""
    servicer.max_rows = 1000

    def call(calls: list[Call], **settings: Any) -> list[Any]:
        outcomes: list[Any] = request.param(target, calls, **settings)
        return outcomes

    return call


def test_each_caller_gets_its_own_rows(together: Together, servicer: Servicer) -> None:
    """Callers of one method share requests, and their answers are those that they get alone."""
    servicer.delay_s = 0.05
    calls: list[Call] = [("encode", (images(3) + np.uint8(first),), {}) for first in range(20)]
    answers = together(calls)
    for first, answer in enumerate(answers):
        assert answer.mean[:, 0].tolist() == [first, first + 1, first + 2]
        assert (answer.model, answer.version, answer.precision) == ("tiny", 1, "fp32")
        assert answer.log_variance is None
        answer.mean[0] = 5  # The caller owns the arrays.
        assert answer.mean.base is None
    assert servicer.count("Encode") <= 4


def test_methods_and_options_are_not_mixed(together: Together, servicer: Servicer) -> None:
    """Every method and option may be called at the same time; each caller gets what it asked for."""
    servicer.delay_s = 0.02
    calls: list[Call] = []
    for first in range(0, 40, 5):
        rows = images(2) + np.uint8(first)
        files = [bytes([first]), bytes([first + 1])]
        calls += [
            ("encode", (rows,), {}),
            ("encode", (rows, True), {}),
            ("encode", (rows[..., 0],), {}),
            ("encode", (files,), {}),
            ("decode", (rows[:, 0, 0, :1].repeat(2, 1).astype(float),), {}),
            ("reconstruct", (rows,), {}),
            ("score", (rows,), {"seed": first, "first_row": first}),
        ]
    answers = together(calls)
    for (method, (rows, *options), _), answer in zip(calls, answers, strict=True):
        firsts = (
            [x[0] for x in rows] if isinstance(rows, list) else np.asarray(rows).reshape(2, -1)[:, 0].tolist()
        )
        match method:
            case "encode":
                assert answer.mean[:, 0].tolist() == firsts
                assert (answer.log_variance is None) == (not options)
            case "score":
                assert (answer.distortion.tolist(), answer.seed) == (firsts, None)
            case _:
                assert answer.images[:, 0, 0, 0].tolist() == firsts
    # Threads that begin together each fetch the description of the model.
    assert len(servicer.seen) - servicer.count("GetModel") < 30
    scores = [request for method, request in servicer.seen if method == "Score"]
    assert any(request.pixels.count > 2 and not request.HasField("seed") for request in scores)


def test_draws_and_large_calls_are_sent_alone(together: Together, servicer: Servicer) -> None:
    """`sample`, `score` with draws and calls of many rows have a request each."""
    servicer.delay_s = 0.05
    calls: list[Call] = [("sample", (2,), {"seed": 7}), ("sample", (2,), {}), ("sample", (2,), {"seed": 7})]
    calls += [("score", (images(2), 3), {"seed": 7}), ("score", (images(2), 3), {})]
    calls += [("encode", (images(17),), {})] * 3
    answers = together(calls)
    assert [answer.seed for answer in answers[:3]] == [7, 12345, 7]
    assert servicer.count("Sample") == 3
    assert servicer.count("Score") == 2
    assert [request.pixels.count for method, request in servicer.seen if method == "Encode"] == [17] * 3


def test_limits_of_the_server_bound_a_joint_call(together: Together, servicer: Servicer) -> None:
    """No request has more rows than the server accepts, and every caller's rows are in one request."""
    servicer.max_rows, servicer.delay_s = 7, 0.02
    answers = together([("encode", (images(3) + np.uint8(first),), {}) for first in range(12)])
    assert [answer.mean[0, 0] for answer in answers] == list(range(12))
    counts = {request.pixels.count for method, request in servicer.seen if method == "Encode"}
    assert counts <= {3, 6}


def test_a_refused_row_fails_its_own_caller(together: Together, servicer: Servicer) -> None:
    """One caller's bad file costs a few requests, not one for each of the others."""

    def before(method: str, request: Any) -> None:
        bad = [row for row, file in enumerate(request.files) if file == b"bad"] if method == "Encode" else []
        if bad:
            reasons = {f"files[{row}]": "no image" for row in bad}
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"files[{bad[0]}]: no image", violations=reasons)

    servicer.before, servicer.delay_s = before, 0.05
    calls: list[Call] = [("encode", ([bytes([first]), b"x"],), {}) for first in range(16)]
    calls[9] = ("encode", ([b"good", b"bad"],), {})
    answers = together(calls)
    bad = answers.pop(9)
    assert [answer.mean[0, 0] for answer in answers] == [first for first in range(16) if first != 9]
    assert isinstance(bad, convvae.InvalidInput)
    assert [violation.field for violation in bad.violations] == ["files[1]"]
    assert str(bad).startswith("files[1]: no image")
    assert servicer.count("Encode") <= 7


def test_arguments_that_do_not_fit_fail_their_own_caller(together: Together, servicer: Servicer) -> None:
    """Images of a wrong size and latents with NaN fail beside calls that are answered."""
    servicer.delay_s = 0.02
    calls: list[Call] = [("encode", (images(1),), {}) for _ in range(6)]
    calls += [
        ("encode", (np.zeros((1, 5, 5, 1), np.uint8),), {}),
        ("encode", (np.zeros((2, 5, 5, 1), np.uint8),), {}),
    ]
    calls += [("decode", (np.full((1, 2), np.nan),), {}), ("decode", (np.zeros((1, 2)),), {})]
    answers = together(calls)
    assert [answer.mean.shape for answer in answers[:6]] == [(1, 2)] * 6
    for answer, rows in zip(answers[6:8], (1, 2), strict=True):
        assert isinstance(answer, convvae.InvalidInput)
        assert f"shape is ({rows}, 5, 5, 1)" in str(answer)
    assert isinstance(answers[8], convvae.InvalidInput)
    assert answers[9].images.shape == (1, 4, 3, 1)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_a_joint_call_is_retried_as_one(
    together: Together, servicer: Servicer, code: grpc.StatusCode
) -> None:
    """Retries follow the client's rules: a joint call takes one token, and its callers share the answer."""
    servicer.before = fail_first(3, "Encode", code, retry_delay_s=0.01)
    servicer.delay_s = 0.02
    answers = together([("encode", (images(1),), {}) for _ in range(16)], retry=RetryConfig(backoff_s=0.001))
    assert [answer.mean.shape for answer in answers] == [(1, 2)] * 16
    assert servicer.count("Encode") <= 8


def test_a_server_that_is_away_is_asked_once_for_all(together: Together, servicer: Servicer) -> None:
    """If the retries are used up, every caller of the joint call gets the error, and nobody sends alone."""
    servicer.before = fail_first(10**6, "Encode", grpc.StatusCode.UNAVAILABLE)
    answers = together([("encode", (images(1),), {}) for _ in range(16)], retry=RetryConfig(retries=0))
    assert [(type(error), error.request_id) for error in answers] == [(convvae.Unavailable, "id-7")] * 16
    assert servicer.count("Encode") < 16


def test_rows_of_one_caller_are_of_one_version(together: Together, servicer: Servicer) -> None:
    """If the server changes its default version, each answer names the version that answered it."""
    servicer.versions, servicer.delay_s = (1,), 0.005

    def before(method: str, _request: Any) -> None:
        if method == "Encode" and servicer.count("Encode") == 2:
            servicer.versions = (1, 2)

    servicer.before = before
    calls: list[Call] = [("encode", (images(2),), {}) for _ in range(32)]
    calls += [("encode", (images(2),), {"model": "tiny@1"}) for _ in range(4)]
    answers = together(calls)
    assert {answer.version for answer in answers[:32]} <= {1, 2}
    assert {answer.version for answer in answers[32:]} == {1}
    named = [request for method, request in servicer.seen if method == "Encode" and request.model.version]
    assert sum(request.pixels.count for request in named) == 8


def test_each_caller_has_its_own_time(together: Together, servicer: Servicer) -> None:
    """A caller with little time gives up in time, and patient callers of the same request are answered."""
    servicer.delay_s = 0.5
    calls: list[Call] = [("encode", (images(1),), {"timeout_s": 0.2 if n % 2 else 10.0}) for n in range(16)]
    start = time.monotonic()
    answers = together(calls)
    assert time.monotonic() - start < 5
    assert [answer.mean.shape for answer in answers[::2]] == [(1, 2)] * 8
    assert [type(error) for error in answers[1::2]] == [convvae.DeadlineExceeded] * 8


def test_close_ends_calls_that_wait(target: str, servicer: Servicer) -> None:
    """Closing the client ends calls in flight and calls that wait."""
    servicer.delay_s = 5.0
    client = Client(target, coalesce=True)
    client.model()
    outcomes: list[Any] = []

    def work() -> None:
        try:
            outcomes.append(client.encode(images(1)))
        except convvae.ConvvaeError as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: servicer.count("Encode") == 1)
    time.sleep(0.1)
    client.close()
    for thread in threads:
        thread.join(5)
    assert outcomes == [convvae.Cancelled] * 4
    with pytest.raises(convvae.ClientClosed):
        client.encode(images(1))


async def test_close_ends_tasks_that_wait(target: str, servicer: Servicer) -> None:
    """Closing the asynchronous client ends calls in flight and calls that wait."""
    servicer.delay_s = 5.0
    client = AsyncClient(target, coalesce=True)
    await client.model()
    tasks = [asyncio.create_task(client.encode(images(1))) for _ in range(4)]
    await asyncio.to_thread(wait_until, lambda: servicer.count("Encode") == 1)
    await client.close()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in outcomes] == [convvae.Cancelled] * 4
    with pytest.raises(convvae.ClientClosed):
        await client.encode(images(1))


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_leader_harms_nobody(target: str, servicer: Servicer) -> None:
    """Ctrl-C ends the call of the main thread; those whose rows it was sending are answered."""
    servicer.max_rows, servicer.delay_s = 1000, 0.5
    with Client(target, coalesce=True) as client:
        client.model()
        answers: list[Any] = []
        threads = [
            threading.Thread(target=lambda: answers.append(client.encode(images(1)).mean)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: servicer.count("Encode") == 1)
        # The main thread has the latest deadline: it leads the next joint call.
        threading.Timer(0.8, _thread.interrupt_main).start()
        with pytest.raises(KeyboardInterrupt):
            client.encode(images(2), timeout_s=60)
        for thread in threads:
            thread.join(20)
        assert [answer.shape for answer in answers] == [(1, 2)] * 8
        assert client.encode(images(1)).mean.shape == (1, 2)


def test_a_copy_coalesces_too(target: str) -> None:
    """A pickled client keeps the setting."""
    client = pickle.loads(pickle.dumps(Client(target, coalesce=True)))
    assert client._config.coalesce
    client.close()
