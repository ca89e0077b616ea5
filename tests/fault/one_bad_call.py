"""One bad call among 40 at once: results/FRONT/one_bad_call.json.

    python tests/fault/one_bad_call.py [--front grpcio|native]

In each round 40 clients' calls arrive together and share batches; the engine fails any batch with a white
image in it, and one call has one. It alone may fail, and the others must get their own rows.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import grpc
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from convvae.v1 import vae_pb2
from fault.slow_server import POISON, SlowServer
from support.figure import measure_to_files
from support.observed import observed
from support.tiny_bundle import SHAPE, publish_tiny
from support.wire import TIMEOUT_S, pixels, stub_of, unpack

AT_ONCE = 40


def measure(front: str, rounds: int = 50) -> dict[str, Any]:
    """Return the figures of so many rounds."""
    images = np.random.default_rng(0).integers(0, POISON, (AT_ONCE, *SHAPE.as_tuple), np.uint8)
    good = [vae_pb2.EncodeRequest(pixels=pixels(image[None])) for image in images]
    bad = vae_pb2.EncodeRequest(pixels=pixels(np.full((1, *SHAPE.as_tuple), POISON, np.uint8)))
    bad_codes: dict[str, int] = {}
    lost = wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        publish_tiny(Path(folder))
        # The first call of a round would else run by itself.
        with (
            observed(SlowServer, Path(folder), "--front", front, "--max-queue-delay-us", "20000") as server,
            stub_of(server.target) as stub,
        ):
            alone = [unpack(stub.Encode(request, timeout=TIMEOUT_S).mean)[0] for request in good]
            before = server.metrics()
            for turn in range(rounds):
                which = turn % AT_ONCE
                calls = [
                    stub.Encode.future(bad if index == which else request, timeout=TIMEOUT_S)
                    for index, request in enumerate(good)
                ]
                for index, call in enumerate(calls):
                    code = call.code()
                    if index == which:
                        bad_codes[code.name] = bad_codes.get(code.name, 0) + 1
                    elif code is not grpc.StatusCode.OK:
                        lost += 1
                    else:
                        wrong += not np.allclose(unpack(call.result().mean)[0], alone[index], atol=1e-5)
            after = server.metrics()
            pending = server.wait_idle()
            shared = len(server.messages("a batch failed, running its calls one by one"))
    rows, runs = (
        after[f'convvae_batch_rows_{part}{{stage="encode"}}']
        - before.get(f'convvae_batch_rows_{part}{{stage="encode"}}', 0)
        for part in ("sum", "count")
    )
    return {
        "figure": "one call that makes its batch fail among 40 at once",
        "met": {
            "no other call fails": lost == 0,
            "every other call gets its own rows": wrong == 0,
            "the bad call fails as INTERNAL": bad_codes == {"INTERNAL": rounds},
            "it shared its batch": shared > 0,
            "nothing stays pending": not any(pending.values()),
        },
        "rounds": rounds,
        "calls": rounds * AT_ONCE,
        "others_lost": lost,
        "others_wrong": wrong,
        "bad_codes": bad_codes,
        "batches_that_failed_and_ran_call_by_call": shared,
        "mean_rows_of_a_batch": round(rows / runs, 1),
    }


if __name__ == "__main__":
    measure_to_files(__file__, __doc__, measure)
