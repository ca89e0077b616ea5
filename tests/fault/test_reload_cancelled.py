"""Callers that give up while versions are replaced."""

import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from convvae.v1 import vae_pb2 as pb
from support.every_call import every_call, publish
from support.serving import serving
from support.wire import TIMEOUT_S, stub_of

LAST = 5
CODES = {grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


@pytest.mark.usefixtures("each_front")
def test_calls_that_are_given_up_keep_no_version_open(tmp_path: Path) -> None:
    """Whether a call of any kind is answered, expires or is cancelled, its version is closed after it."""
    publish(tmp_path)
    stop = threading.Event()
    codes: set[grpc.StatusCode] = set()

    def give_up(seed: int, target: str) -> None:
        rng = np.random.default_rng(seed)
        with every_call(target) as every:
            while not stop.is_set():
                calls = [make(timeout=rng.uniform(0.001, 0.1)) for make in every.by_kind.values()]
                for call in calls[int(rng.integers(2)) :: 2]:
                    call.cancel()
                codes.update(call.code() for call in calls)

    flags = ("--watch", "--watch-interval-s", "0.05", "--lanes", "2", "--threads", "1")
    with serving(tmp_path, *flags) as server, stub_of(server.target) as stub:
        threads = [threading.Thread(target=give_up, args=(seed, server.target)) for seed in range(3)]
        for thread in threads:
            thread.start()
        try:
            for version in range(2, LAST + 1):
                publish(tmp_path)
                deadline_s = time.monotonic() + TIMEOUT_S
                while version - 1 not in [m["version"] for m in server.messages("model version unloaded")]:
                    assert time.monotonic() < deadline_s, f"version {version - 1} was not closed"
                    time.sleep(0.01)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S).model.version == LAST
        closed = [line["version"] for line in server.messages("model version unloaded")]
        assert closed == list(range(1, LAST))
        assert not server.messages("internal error")
        assert not server.noise
    assert codes <= CODES
    assert grpc.StatusCode.OK in codes
    assert len(codes) > 1
