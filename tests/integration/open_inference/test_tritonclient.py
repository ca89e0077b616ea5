"""The Open Inference Protocol by tritonclient, unmodified, in a process and an environment of its own."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convvae.v1 import vae_pb2
from support.serving import ServerProcess, serving
from support.tiny_bundle import LATENT_DIM, SHAPE
from support.wire import TIMEOUT_S, pixels, random_images, stub_of, unpack

PYTHON = Path(__file__).parents[3] / ".tools" / "tritonclient-venv" / "bin" / "python"
PROGRAM = Path(__file__).parent / "tritonclient_program.py"
IMAGES = random_images(3, *SHAPE.as_tuple, seed=5)
NOT_A_GRAPH = "models are the graphs MODEL.encoder and MODEL.decoder, and RepositoryIndex lists them"


@pytest.fixture(scope="module")
def server(tiny_root: Path, front: str) -> Iterator[ServerProcess]:
    """A server of small batches: a call of a thousand rows takes long enough to be cancelled."""
    with serving(
        tiny_root, "--max-batch-rows", "2", "--request-compression", "gzip", "--front", front
    ) as server:
        yield server


@pytest.fixture(scope="module")
def findings(server: ServerProcess) -> dict[str, Any]:
    """The findings of a program with tritonclient, step by step."""
    if not PYTHON.exists():
        pytest.skip("tritonclient is not in .tools: run `make tools`")
    # Isolated (-I): nothing of this project is in reach.
    done = subprocess.run(
        [PYTHON, "-I", PROGRAM, server.target], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_tritonclient_asks_for_health(findings: dict[str, Any]) -> None:
    """The server and the model that are there are ready; a version and a name that are not are not."""
    assert findings["health"] == [True, True, True, True, False, False]


def test_tritonclient_reads_metadata(findings: dict[str, Any]) -> None:
    """Its JSON forms of metadata and configuration have names, types and shapes."""
    server, decoder = findings["metadata"]
    assert server["name"] == "convvae"
    assert server["extensions"] == ["model_configuration", "statistics"]
    assert decoder["inputs"] == [{"name": "latent", "datatype": "FP32", "shape": ["-1", str(LATENT_DIM)]}]
    assert [tensor["name"] for tensor in decoder["outputs"]] == ["image", "pixel_mean"]
    config = findings["config"]
    assert (config["name"], config["backend"], config["max_batch_size"]) == (
        "tiny.encoder",
        "onnxruntime",
        1024,
    )
    assert config["input"] == [{"name": "image", "data_type": "TYPE_UINT8", "dims": ["8", "6", "1"]}]
    assert [output["name"] for output in config["output"]] == ["mean", "log_variance"]
    assert config["instance_group"][0]["kind"] == "KIND_CPU"
    assert "dynamic_batching" in config
    assert findings["repository"] == {
        "models": [
            {"name": f"tiny.{role}", "version": "1", "state": "READY"} for role in ("encoder", "decoder")
        ]
    }


def test_tritonclient_reads_statistics(findings: dict[str, Any]) -> None:
    """Counts and durations stand where it looks for them."""
    found = findings["statistics"]
    assert (found["name"], found["inference_count"], found["execution_count"]) == ("tiny.encoder", "3", "2")
    assert found["inference_stats"]["success"]["count"] == "1"
    assert [batch["batch_size"] for batch in found["batch_stats"]] == ["1", "2"]


def test_tritonclient_infers(server: ServerProcess, findings: dict[str, Any]) -> None:
    """Raw arrays, plain and in gzip, give what the native API gives; deflate is refused."""
    with stub_of(server.target) as native:
        reply = native.Encode(vae_pb2.EncodeRequest(pixels=pixels(IMAGES)), timeout=TIMEOUT_S)
    for compression in ("None", "gzip", "deflate"):
        found = findings["infer"][compression]
        if compression == "deflate":
            assert found == {"status": "StatusCode.UNIMPLEMENTED"}
            continue
        assert found["reply"] == ["tiny.encoder", "1", "abc"]
        np.testing.assert_allclose(found["mean"], unpack(reply.mean), rtol=1e-5, atol=1e-6)
        assert found["log_variance"] == [3, LATENT_DIM]
    assert findings["infer"]["decoder"] == [[2, *SHAPE.as_tuple], "float32", True]


def test_tritonclient_infers_many_at_once(findings: dict[str, Any]) -> None:
    """Twenty calls at the same time each get their own rows."""
    assert findings["asynchronous"] == {str(number): 1 + number % 3 for number in range(20)}


def test_tritonclient_streams(findings: dict[str, Any]) -> None:
    """A stream answers in order; an error is its request's alone; a final reply is marked where asked for."""
    for number, (reply_id, error, final) in enumerate(findings["stream"]):
        if number == 11:
            assert error.startswith(
                "NOT_FOUND: no model 'absent.encoder' on this server: models are the graphs"
            )
        else:
            assert (reply_id, error, final) == (str(number), None, number == 3)


def test_tritonclient_runs_out_of_time(findings: dict[str, Any]) -> None:
    """Its own deadline and the request's `timeout` both end a call with DEADLINE_EXCEEDED."""
    by_client, by_request = findings["timeout"]
    # The client words its own; the server words the request's.
    assert by_client[0] == "StatusCode.DEADLINE_EXCEEDED"
    assert by_request == [
        "StatusCode.DEADLINE_EXCEEDED",
        "the request took longer than its parameter 'timeout', 1000 microseconds",
    ]


def test_tritonclient_cancels(server: ServerProcess, findings: dict[str, Any]) -> None:
    """Cancelled calls and streams end as such, and hurt neither the next call nor the server."""
    error, stream_error, shape = findings["cancel"]
    assert "CANCELLED" in error
    assert "CANCELLED" in stream_error
    assert shape == [3, LATENT_DIM]
    assert server.messages("internal error") == []
    assert server.noise == []


def test_tritonclient_shows_mistakes(findings: dict[str, Any]) -> None:
    """A user's mistake is answered with the tensor, what was given and what is expected."""
    invalid = "StatusCode.INVALID_ARGUMENT"
    assert findings["mistakes"] == {
        "datatype": [invalid, "inputs[0].datatype: of 'image' is 'FP32', not 'UINT8'"],
        "shape": [invalid, "inputs[0].shape: of 'image' is [3, 4, 6, 1], not [-1, 8, 6, 1]"],
        "name": [invalid, "inputs[0].name: is 'pixels', the input of 'tiny.encoder' is 'image'"],
        "output": [
            invalid, "outputs[0].name: is 'z', the outputs of 'tiny.encoder' are mean, log_variance"
        ],
        "classes": [
            invalid, "outputs[0].parameters[classification]: is not supported: the outputs are not classes"
        ],
        "model": [
            "StatusCode.NOT_FOUND",
            f"no model 'absent' on this server: {NOT_A_GRAPH}",
        ],
        "version": [
            "StatusCode.NOT_FOUND",
            "model 'tiny' has no version 7: ListModels lists its versions",
        ],
        "load": ["StatusCode.UNIMPLEMENTED", "Method not found!"],
        "shared memory": ["StatusCode.UNIMPLEMENTED", "Method not found!"],
    }  # fmt: skip
