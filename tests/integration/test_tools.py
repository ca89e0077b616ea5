"""Other languages' tools against the server. `make tools` installs them; a test without its tool skips."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from convvae.v1 import vae_pb2
from support.serving import ServerProcess, serving
from support.tiny_bundle import LATENT_DIM, SHAPE
from support.wire import TIMEOUT_S, pixels, random_images, stub_of, unpack

TOOLS = Path(__file__).parents[2] / ".tools" / "bin"


def tool(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one of the tools, or skip the test where it is not installed."""
    path = shutil.which(name, path=f"{TOOLS}{os.pathsep}{os.environ['PATH']}")
    if path is None:
        pytest.skip(f"{name} is not installed: make tools")
    return subprocess.run([path, *words], capture_output=True, text=True, timeout=30, check=False)


def test_grpcurl_finds_everything_by_reflection(tiny_server: ServerProcess) -> None:
    """A tool without our proto lists the services, describes one and calls it."""
    target = tiny_server.target
    services = tool("grpcurl", "-plaintext", target, "list").stdout.split()
    assert services == [
        "convvae.v1.VaeService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    ]
    described = tool("grpcurl", "-plaintext", target, "describe", "convvae.v1.VaeService").stdout
    assert "rpc Sample ( .convvae.v1.SampleRequest ) returns ( .convvae.v1.SampleResponse );" in described
    method = tool("grpcurl", "-plaintext", target, "describe", "convvae.v1.VaeService.Encode").stdout
    assert "rpc Encode ( .convvae.v1.EncodeRequest ) returns ( .convvae.v1.EncodeResponse );" in method
    for version in ("v1", "v1alpha"):
        name = f"grpc.reflection.{version}.ServerReflection"
        assert "rpc ServerReflectionInfo" in tool("grpcurl", "-plaintext", target, "describe", name).stdout
    request = '{"count": 2, "seed": 7}'
    done = tool("grpcurl", "-plaintext", "-d", request, target, "convvae.v1.VaeService/Sample")
    reply = json.loads(done.stdout)
    assert (reply["seed"], reply["model"]["name"], reply["latents"]["count"]) == ("7", "tiny", 2)


@pytest.mark.parametrize("method", ["convvae.v1.VaeService.Sample", "convvae.v1.VaeService/Sample"])
def test_ghz_finds_a_method_by_reflection(tiny_server: ServerProcess, method: str) -> None:
    """The load generator asks for the method's own name, in either form, and every call is answered."""
    words = ("--insecure", "--call", method, "-d", '{"count": 2}', "-n", "40", "-c", "4", "-O", "json")
    done = tool("ghz", *words, tiny_server.target)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["statusCodeDistribution"] == {"OK": 40}


def test_grpcurl_lists_the_health_of_every_name(tiny_server: ServerProcess) -> None:
    """One call shows services, models and `liveness`."""
    done = tool("grpcurl", "-plaintext", tiny_server.target, "grpc.health.v1.Health/List")
    statuses = json.loads(done.stdout)["statuses"]
    assert statuses.keys() == {"", "convvae.v1.VaeService", "liveness", "tiny"}
    assert all(found == {"status": "SERVING"} for found in statuses.values())


def test_grpcurl_infers_by_reflection(tiny_server: ServerProcess) -> None:
    """A tool without any proto finds the service, its methods and its messages, and calls it."""
    images = random_images(3, *SHAPE.as_tuple)
    name = "inference.GRPCInferenceService"
    assert name in tool("grpcurl", "-plaintext", tiny_server.target, "list").stdout.split()
    described = tool("grpcurl", "-plaintext", tiny_server.target, "describe", name).stdout
    assert (
        "rpc ModelStreamInfer ( stream .inference.ModelInferRequest )"
        " returns ( stream .inference.ModelStreamInferResponse );"
    ) in described
    request = {
        "model_name": "tiny.encoder",
        "id": "by hand",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [3, 8, 6, 1]}],
        "outputs": [{"name": "mean"}],
        "raw_input_contents": [base64.b64encode(images.tobytes()).decode()],
    }
    words = ("-plaintext", "-d", json.dumps(request), tiny_server.target, f"{name}/ModelInfer")
    reply = json.loads(tool("grpcurl", *words).stdout)
    assert (reply["model_name"], reply["id"]) == ("tiny.encoder", "by hand")
    assert reply["outputs"] == [{"name": "mean", "datatype": "FP32", "shape": ["3", str(LATENT_DIM)]}]
    mean = np.frombuffer(base64.b64decode(reply["raw_output_contents"][0]), "<f4")
    with stub_of(tiny_server.target) as native:
        expected = native.Encode(vae_pb2.EncodeRequest(pixels=pixels(images)), timeout=TIMEOUT_S)
    np.testing.assert_allclose(mean.reshape(3, LATENT_DIM), unpack(expected.mean), rtol=1e-5, atol=1e-6)


def test_grpcurl_reads_the_details_of_an_error(tiny_server: ServerProcess) -> None:
    """Details are `google.rpc` messages that other tools understand."""
    words = ("-plaintext", "-d", '{"count": -1}', tiny_server.target, "convvae.v1.VaeService/Sample")
    done = tool("grpcurl", *words)
    assert "Code: InvalidArgument" in done.stderr
    assert "Message: count: is -1: send 1 or more rows" in done.stderr
    assert "google.rpc.BadRequest" in done.stderr


@pytest.mark.usefixtures("each_front")
def test_reflection_can_be_switched_off(tiny_root: Path) -> None:
    """With `--no-reflection` the server does not describe itself."""
    with serving(tiny_root, "--no-reflection") as server:
        done = tool("grpcurl", "-plaintext", server.target, "list")
    assert done.returncode != 0
    assert "server does not support the reflection API" in done.stderr


@pytest.mark.parametrize(("service", "code"), [("", 0), ("tiny", 0), ("liveness", 0), ("absent", 3)])
def test_health_probe(tiny_server: ServerProcess, service: str, code: int) -> None:
    """The probe that clusters use sees each name as it is; an unknown one is unhealthy."""
    done = tool("grpc-health-probe", f"-addr={tiny_server.target}", f"-service={service}")
    assert done.returncode == code, done.stderr
