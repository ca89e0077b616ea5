"""Clients with `coalesce=True` against a real server: storms, bad callers, reloads and deadlines."""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convvae
from convvae import AsyncClient, Client
from support.png_file import png_file
from support.serving import ServerProcess, serving
from support.tiny_bundle import publish_tiny
from support.watched_models import WATCH

IMAGES = np.random.default_rng(1).integers(0, 256, (64, 8, 6, 1), np.uint8)
FILES = [png_file(image.astype(np.uint16), depth=8, colour=0) for image in IMAGES]
CALLERS = 64
ROUNDS = 12

# Makes one call of a caller and a round: the method and its arguments.
Plan = Callable[[int, int], tuple[str, tuple[Any, ...], dict[str, Any]]]
# Runs a storm, and returns the outcomes of each caller's rounds and their times in seconds.
Storm = Callable[[str, Plan], list[list[tuple[Any, float]]]]


def storm_of_threads(target: str, plan: Plan) -> list[list[tuple[Any, float]]]:
    """Run the callers as threads of one `Client`."""
    outcomes: list[list[tuple[Any, float]]] = [[] for _ in range(CALLERS)]
    with Client(target, coalesce=True) as client:

        def work(caller: int) -> None:
            for number in range(ROUNDS):
                method, args, kwargs = plan(caller, number)
                start = time.monotonic()
                try:
                    outcome: Any = getattr(client, method)(*args, **kwargs)
                except convvae.ConvvaeError as error:
                    outcome = error
                outcomes[caller].append((outcome, time.monotonic() - start))

        threads = [threading.Thread(target=work, args=(caller,)) for caller in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.encode(IMAGES[:1]).mean.shape == (1, 4)
    return outcomes


def storm_of_tasks(target: str, plan: Plan) -> list[list[tuple[Any, float]]]:
    """Run the callers as tasks of one `AsyncClient`."""

    async def main() -> list[list[tuple[Any, float]]]:
        async with AsyncClient(target, coalesce=True) as client:

            async def work(caller: int) -> list[tuple[Any, float]]:
                outcomes = []
                for number in range(ROUNDS):
                    method, args, kwargs = plan(caller, number)
                    start = time.monotonic()
                    try:
                        call: Awaitable[Any] = getattr(client, method)(*args, **kwargs)
                        outcome: Any = await call
                    except convvae.ConvvaeError as error:
                        outcome = error
                    outcomes.append((outcome, time.monotonic() - start))
                return outcomes

            outcomes = await asyncio.gather(*map(work, range(CALLERS)))
            assert (await client.encode(IMAGES[:1])).mean.shape == (1, 4)
            return outcomes

    return asyncio.run(main())


@pytest.fixture(params=[storm_of_threads, storm_of_tasks], ids=["threads", "tasks"])
def storm(request: pytest.FixtureRequest) -> Storm:
    """Run callers at the same time on one client of either kind."""
    run: Storm = request.param
    return run


def test_answers_are_those_of_a_plain_client(tiny_server: ServerProcess, storm: Storm) -> None:
    """Every caller gets for its rows what it gets without joint calls."""
    with Client(tiny_server.target) as plain:
        encoded = plain.encode(IMAGES, include_log_variance=True)
        decoded = plain.decode(encoded.mean).images
        scored = plain.score(IMAGES)
    assert encoded.log_variance is not None

    def plan(caller: int, number: int) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        rows = slice(caller, caller + 1 + number % 3)
        arguments: list[tuple[str, tuple[Any, ...]]] = [
            ("encode", (IMAGES[rows], True)),
            ("encode", (FILES[rows],)),
            ("decode", (encoded.mean[rows],)),
            ("reconstruct", (IMAGES[rows],)),
            ("score", (IMAGES[rows],)),
        ]
        return *arguments[number % 5], {}

    for caller, outcomes in enumerate(storm(tiny_server.target, plan)):
        for number, (answer, _) in enumerate(outcomes):
            rows = slice(caller, caller + 1 + number % 3)
            assert (answer.model, answer.version, answer.precision) == ("tiny", 1, "fp32")
            match number % 5:
                case 0 | 1:
                    assert np.allclose(answer.mean, encoded.mean[rows], atol=1e-5)
                    assert (answer.log_variance is None) == (number % 5 == 1)
                case 2 | 3:
                    assert np.abs(answer.images.astype(int) - decoded[rows]).max() <= 1
                case _:
                    assert np.allclose(answer.elbo, scored.elbo[rows], rtol=1e-4)


def test_a_storm_with_random_deadlines_and_one_bad_caller(tiny_server: ServerProcess, storm: Storm) -> None:
    """Callers with enough time are all answered, beside hasty ones and beside one with bad files."""
    with Client(tiny_server.target) as plain:
        expected = plain.encode(IMAGES).mean

    def plan(caller: int, number: int) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        if caller == 0:
            return "encode", ([FILES[0], b"no image"],), {}
        hasty = random.Random(caller * 1000 + number).uniform(0.001, 0.05)
        return "encode", ([FILES[caller]],), {"timeout_s": hasty} if caller % 2 else {}

    ends: Counter[str] = Counter()
    for caller, outcomes in enumerate(storm(tiny_server.target, plan)):
        for outcome, seconds in outcomes:
            if caller == 0:
                assert isinstance(outcome, convvae.InvalidInput)
                assert [violation.field for violation in outcome.violations] == ["files[1]"]
            elif isinstance(outcome, convvae.DeadlineExceeded):
                assert caller % 2
                assert seconds < 5
            else:
                assert np.allclose(outcome.mean, expected[caller : caller + 1], atol=1e-5)
            ends[type(outcome).__name__] += 1
    assert ends["InvalidInput"] == ROUNDS
    assert ends["Encoded"] >= CALLERS // 2 * ROUNDS - ROUNDS


def test_a_reload_under_load_loses_no_call(tmp_path: Path, storm: Storm) -> None:
    """Every call is answered through a new version, and each answer is of one version."""
    publish_tiny(tmp_path, seed=1)
    with serving(tmp_path, *WATCH) as server:
        with Client(server.target) as plain:
            means = {1: plain.encode(IMAGES).mean}

        def plan(caller: int, number: int) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
            if (caller, number) == (0, 3):
                publish_tiny(tmp_path, seed=2)
                server.wait_for("model version unloaded", version=1)
            return "encode", (IMAGES[caller : caller + 2],), {}

        outcomes = storm(server.target, plan)
        with Client(server.target) as plain:
            means[2] = plain.encode(IMAGES).mean
    versions = set()
    for caller, answers in enumerate(outcomes):
        for answer, _ in answers:
            versions.add(answer.version)
            assert np.allclose(answer.mean, means[answer.version][caller : caller + 2], atol=1e-5)
    assert 2 in versions


def test_an_overloaded_server_is_not_overloaded_more(tiny_root: Path, storm: Storm) -> None:
    """Joint calls keep within the rows that the server's queue holds, so that none of them is refused."""
    with serving(tiny_root, "--max-rows-per-call", "8", "--max-queued-rows", "8") as server:
        outcomes = storm(server.target, lambda caller, _: ("encode", (IMAGES[caller : caller + 1],), {}))
        assert {type(outcome).__name__ for caller in outcomes for outcome, _ in caller} == {"Encoded"}
        page = server.metrics_page()
    calls = sum(
        float(line.split()[-1])
        for line in page.splitlines()
        if line.startswith("convvae_calls_total") and 'method="Encode"' in line
    )
    assert 0 < calls < CALLERS * ROUNDS / 4
