"""A user's program with `tritonclient`, unmodified: each step's findings go to stdout as JSON.

It runs in the environment that `make tools` makes, with nothing of this project: `PYTHON FILE HOST:PORT`.
"""

import json
import queue
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

TIMEOUT_S = 20.0
IMAGES = np.random.default_rng(5).integers(0, 256, (3, 8, 6, 1), np.uint8)
MANY = np.zeros((1000, 8, 6, 1), np.uint8)
LATENTS = np.ones((2, 4), np.float32)


def tensor(name: str, values: Any, datatype: str) -> Any:
    made = triton.InferInput(name, values.shape, datatype)
    made.set_data_from_numpy(values)
    return made


def images(values: Any = IMAGES) -> list[Any]:
    return [tensor("image", values, "UINT8")]


def failure(call: Callable[[], Any]) -> list[str]:
    """Return the status and the message that a call fails with."""
    try:
        call()
    except InferenceServerException as error:
        return [str(error.status()), str(error.message())]
    return ["answered", ""]


def health(client: Any) -> Any:
    return [
        client.is_server_live(),
        client.is_server_ready(),
        client.is_model_ready("tiny.encoder"),
        client.is_model_ready("tiny.encoder", "1"),
        client.is_model_ready("tiny.encoder", "7"),
        client.is_model_ready("absent"),
    ]


def metadata(client: Any) -> Any:
    return [
        client.get_server_metadata(as_json=True),
        client.get_model_metadata("tiny.decoder", as_json=True),
    ]


def config(client: Any) -> Any:
    return client.get_model_config("tiny.encoder", as_json=True)["config"]


def repository(client: Any) -> Any:
    return client.get_model_repository_index(as_json=True)


def statistics(client: Any) -> Any:
    client.infer("tiny.encoder", images())
    return client.get_inference_statistics("tiny.encoder", as_json=True)["model_stats"][0]


def infer(client: Any) -> Any:
    """Infer with and without compression, in both directions of the model."""
    found: dict[str, Any] = {}
    for compression in (None, "gzip", "deflate"):
        try:
            result = client.infer(
                "tiny.encoder", images(), request_id="abc", compression_algorithm=compression
            )
        except InferenceServerException as error:
            found[str(compression)] = {"status": error.status()}
            continue
        reply = result.get_response()
        found[str(compression)] = {
            "reply": [reply.model_name, reply.model_version, reply.id],
            "mean": result.as_numpy("mean").tolist(),
            "log_variance": list(result.as_numpy("log_variance").shape),
        }
    wanted = [triton.InferRequestedOutput("pixel_mean")]
    result = client.infer("tiny.decoder", [tensor("latent", LATENTS, "FP32")], outputs=wanted)
    pixel_mean = result.as_numpy("pixel_mean")
    found["decoder"] = [list(pixel_mean.shape), str(pixel_mean.dtype), result.as_numpy("image") is None]
    return found


def asynchronous(client: Any) -> Any:
    """Infer twenty times at once."""
    answers: queue.Queue[Any] = queue.Queue()
    for number in range(20):
        client.async_infer(
            "tiny.encoder",
            images(IMAGES[: 1 + number % 3]),
            lambda result, error: answers.put((result, error)),
            request_id=str(number),
        )
    found = {}
    for _ in range(20):
        result, error = answers.get(timeout=TIMEOUT_S)
        assert error is None, error
        found[result.get_response().id] = len(result.as_numpy("mean"))
    return found


def stream(client: Any) -> Any:
    """Send thirty requests down a stream, one of them bad, and one after it."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(30):
        model = "absent.encoder" if number == 11 else "tiny.encoder"
        client.async_stream_infer(
            model, images(), request_id=str(number), enable_empty_final_response=number == 3
        )
    found = []
    for _ in range(30):
        result, error = answers.get(timeout=TIMEOUT_S)
        reply = result.get_response() if error is None else None
        final = reply is not None and reply.parameters["triton_final_response"].bool_param
        found.append([reply.id if reply else None, str(error) if error else None, final])
    client.stop_stream()
    return found


def timeout(client: Any) -> Any:
    """Run out of time by the client's clock, and by the request's own limit in microseconds."""
    return [
        failure(lambda: client.infer("tiny.encoder", images(MANY), client_timeout=0.005)),
        failure(lambda: client.infer("tiny.encoder", images(MANY), timeout=1000)),
    ]


def cancel(client: Any) -> Any:
    """Cancel a call, and a stream with calls in it; then infer as if nothing had been."""
    done: queue.Queue[Any] = queue.Queue()
    # It waits behind these.
    for _ in range(6):
        client.async_infer("tiny.encoder", images(MANY), lambda **_: None)
    call = client.async_infer("tiny.encoder", images(MANY), lambda result, error: done.put((result, error)))
    time.sleep(0.02)
    call.cancel()
    _, error = done.get(timeout=TIMEOUT_S)
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for _ in range(20):
        client.async_stream_infer("tiny.encoder", images(MANY))
    client.stop_stream(cancel_requests=True)
    stream_error = None
    while stream_error is None:
        _, stream_error = answers.get(timeout=TIMEOUT_S)
    shape = client.infer("tiny.encoder", images()).as_numpy("mean").shape
    return [str(error), str(stream_error), list(shape)]


def mistakes(client: Any) -> Any:
    """Make the mistakes that users make."""
    return {
        "datatype": failure(
            lambda: client.infer("tiny.encoder", [tensor("image", IMAGES.astype(np.float32), "FP32")])
        ),
        "shape": failure(lambda: client.infer("tiny.encoder", images(IMAGES[:, :4]))),
        "name": failure(lambda: client.infer("tiny.encoder", [tensor("pixels", IMAGES, "UINT8")])),
        "output": failure(
            lambda: client.infer("tiny.encoder", images(), outputs=[triton.InferRequestedOutput("z")])
        ),
        "classes": failure(
            lambda: client.infer(
                "tiny.encoder", images(), outputs=[triton.InferRequestedOutput("mean", class_count=2)]
            )
        ),
        "model": failure(lambda: client.infer("absent", images())),
        "version": failure(lambda: client.infer("tiny.encoder", images(), model_version="7")),
        "load": failure(lambda: client.load_model("tiny.encoder")),
        "shared memory": failure(lambda: client.get_system_shared_memory_status()),
    }


STEPS = (
    health, metadata, config, repository, statistics, infer, asynchronous, stream, timeout, cancel, mistakes,
)  # fmt: skip


def main() -> None:
    findings = {}
    for step in STEPS:
        # A client of its own: what a step does to its connection is its own affair.
        with triton.InferenceServerClient(sys.argv[1]) as client:
            findings[step.__name__] = step(client)
    print(json.dumps(findings))


if __name__ == "__main__":
    main()
