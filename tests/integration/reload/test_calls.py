"""Calls to a server whose versions are replaced: each is answered, by the version that it names."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from convvae.v1 import vae_pb2 as pb
from support.serving import serving
from support.tiny_bundle import LATENT_DIM, SHAPE, publish_tiny, weights
from support.waiting import wait_until
from support.watched_models import INFO, WATCH, states, version_called
from support.wire import TIMEOUT_S, pixels, random_images, refused, stub_of, unpack

# Seconds of one row after the other.
ROWS = 20_000


class Callers:
    """Threads that encode the same images again and again, and check each answer."""

    def __init__(self, target: str, *, num_threads: int = 4) -> None:
        self.versions: list[list[int]] = [[] for _ in range(num_threads)]
        self.errors: list[BaseException] = []
        self._target = target
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(seen,)) for seen in self.versions]

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Call for the length of a `with` block."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def wait_for(self, version: int) -> None:
        """Wait until each thread has had an answer from a version."""
        wait_until(lambda: bool(self.errors) or all(version in seen for seen in self.versions))

    def _call(self, seen: list[int]) -> None:
        images = random_images(3, *SHAPE.as_tuple)
        flat = images.reshape(3, -1).astype(np.float32) / 255
        try:
            with stub_of(self._target) as stub:
                while not self._stop.is_set():
                    reply = stub.Encode(pb.EncodeRequest(pixels=pixels(images)), timeout=TIMEOUT_S)
                    # Version n is made with seed n.
                    expected = flat @ weights(SHAPE, LATENT_DIM, reply.model.version)["encode"]
                    np.testing.assert_allclose(unpack(reply.mean), expected[:, :LATENT_DIM], atol=1e-5)
                    seen.append(reply.model.version)
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            self.errors.append(error)


@pytest.mark.usefixtures("each_front")
def test_a_reload_under_load_loses_no_call(tmp_path: Path) -> None:
    """Every call is answered through three new versions, by the weights of the version that it names."""
    publish_tiny(tmp_path, seed=1)
    with serving(tmp_path, *WATCH) as server, stub_of(server.target) as stub:
        callers = Callers(server.target)
        with callers.calling():
            for version in (2, 3, 4):
                publish_tiny(tmp_path, seed=version)
                server.wait_for("model version unloaded", version=version - 1)
                callers.wait_for(version)
        assert not callers.errors
        for seen in callers.versions:
            assert seen == sorted(seen), "a call after the swap went to the version before it"
            assert set(seen) == {1, 2, 3, 4}
        assert states(stub)["tiny"] == [
            (1, "NOT_LOADED", False),
            (2, "NOT_LOADED", False),
            (3, "NOT_LOADED", False),
            (4, "SERVING", True),
        ]
        server.wait_for_metric('convvae_reloads_total{model="tiny",result="loaded"} 3.0')
        server.wait_for_metric('convvae_reloads_total{model="tiny",result="unloaded"} 3.0')
        server.wait_for_metric(INFO % 4)
        assert INFO % 3 not in server.metrics_page()


@pytest.mark.usefixtures("each_front")
def test_calls_on_the_old_version_end_before_it_is_closed(tmp_path: Path) -> None:
    """A call that runs when the default moves is answered by the version it began on, pinned to it or not."""
    root = tmp_path / "models"
    publish_tiny(root)
    staged = publish_tiny(tmp_path / "staging")
    images = pixels(np.zeros((ROWS, *SHAPE.as_tuple), np.uint8))
    refs = [None, pb.ModelRef(name="tiny", version=1)] * 4
    # The calls last longer than the trial of a version.
    queued = str(10 * ROWS)
    long = ("--max-batch-rows", "1", "--max-rows-per-call", str(ROWS), "--max-queued-rows", queued)
    with serving(root, *WATCH, *long) as server, stub_of(server.target) as stub:
        assert version_called(stub) == 1
        calls = [
            stub.Score.future(pb.ScoreRequest(pixels=images, model=ref), timeout=TIMEOUT_S) for ref in refs
        ]
        server.wait_for_metric("convvae_calls_in_flight 8.0")
        staged.rename(root / "tiny" / "2")
        server.wait_for("default version changed", version=2, before=1)
        assert version_called(stub) == 2
        assert not any(call.done() for call in calls), "the calls ended before the swap"
        assert not server.messages("model version unloaded")
        replies = [call.result() for call in calls]
        assert [(reply.model.version, len(reply.elbo)) for reply in replies] == [(1, ROWS)] * 8
        server.wait_for("model version unloaded", version=1)
        refusal = refused(stub.Sample, pb.SampleRequest(model=pb.ModelRef(name="tiny", version=1), count=1))
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert (
        refusal.message == "version 1 of model 'tiny' is published but not loaded; the default version is 2"
    )


@pytest.mark.usefixtures("each_front")
def test_a_drain_during_a_reload(tmp_path: Path) -> None:
    """A signal among many reloads ends them after the one under way; calls are answered until the end."""
    root, staging = tmp_path / "models", tmp_path / "staging"
    publish_tiny(root)
    for index in range(150):
        publish_tiny(staging, f"model-{index:03}")
    with serving(root, *WATCH, "--drain-delay-s", "0.5") as server, stub_of(server.target) as stub:
        for folder in sorted(staging.iterdir()):
            folder.rename(root / folder.name)
        server.wait_for("model version loaded", model="model-000")
        server.send(signal.SIGTERM)
        server.wait_for("draining")
        loaded = len(server.messages("model version loaded"))
        assert loaded < 100
        assert version_called(stub) == 1
        assert server.wait() == 0
    assert len(server.messages("model version loaded")) <= loaded + 1
    assert not server.noise
