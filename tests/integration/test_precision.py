"""The precision that each model runs in, chosen by `--precision`, as callers and operators see it."""

import json
import shutil
from pathlib import Path

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from convvae.v1 import vae_pb2 as pb
from convvae.v1 import vae_pb2_grpc
from convvae_service.bundle import MANIFEST_FILE, Precision
from convvae_service.repository.check import check_repository
from support.inference_wire import decode_request, inference_stub
from support.serving import ServerProcess, serving
from support.tiny_bundle import LATENT_DIM, PRECISION_SEEDS, SHAPE, publish_tiny, weights
from support.waiting import wait_until
from support.wire import TIMEOUT_S, pixels, random_images, refused, stub_of, unpack

WATCH = ("--watch", "--watch-interval-s", "0.1")
ALL: tuple[Precision, ...] = ("fp32", "fp16", "int8")
IMAGES = random_images(3, *SHAPE.as_tuple)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models `tiny` and `other` with graphs of every precision, and `half` with fp16 alone."""
    root = tmp_path_factory.mktemp("precisions")
    for name in ("tiny", "other"):
        publish_tiny(root, name, precisions=ALL)
    publish_tiny(root, "half", precisions=("fp16",))
    return root


def means_of(precision: Precision) -> NDArray[np.float32]:
    """Return what the encoder of this precision makes of IMAGES."""
    matrix = weights(SHAPE, LATENT_DIM, PRECISION_SEEDS[precision])["encode"]
    flat = IMAGES.reshape(len(IMAGES), -1).astype(np.float32) / 255
    return (flat @ matrix)[:, :LATENT_DIM].astype(np.float32)


def answers_in(stub: vae_pb2_grpc.VaeServiceStub, name: str, precision: Precision, version: int = 1) -> None:
    """Check that the graphs of this precision run, and that every reply names it."""
    model = pb.ModelRef(name=name)
    encoded = stub.Encode(pb.EncodeRequest(model=model, pixels=pixels(IMAGES)), timeout=TIMEOUT_S)
    np.testing.assert_allclose(unpack(encoded.mean), means_of(precision), atol=1e-5)
    sampled = stub.Sample(pb.SampleRequest(model=model, count=1), timeout=TIMEOUT_S)
    described = stub.GetModel(pb.GetModelRequest(model=model), timeout=TIMEOUT_S)
    expected = pb.ServedModel(name=name, version=version, precision=precision)
    assert encoded.model == sampled.model == described.model == expected


def model_info(server: ServerProcess) -> set[tuple[str, ...]]:
    """Return (model, precision) of each version in the metrics."""
    return {
        tuple(line.split('"')[1:4:2])
        for line in server.metrics()
        if line.startswith("convvae_model_info{model=")
    }


def wait_for_loads(server: ServerProcess, count: int) -> None:
    """Wait until so many versions have been loaded since the start."""
    wait_until(lambda: len(server.messages("model version loaded")) >= count)


def test_each_model_runs_in_its_own_precision(root: Path) -> None:
    """A word with a model is for that one, the other word for the rest; calls, metrics and the log agree."""
    flags = ("--precision", "tiny=int8", "--precision", "fp16")
    with serving(root, *flags) as server, stub_of(server.target) as stub:
        answers_in(stub, "tiny", "int8")
        answers_in(stub, "other", "fp16")
        answers_in(stub, "half", "fp16")
        assert model_info(server) == {("tiny", "int8"), ("other", "fp16"), ("half", "fp16")}
        logged = {(line["model"], line["precision"]) for line in server.messages("model version loaded")}
        assert logged == model_info(server)


def test_auto_takes_what_each_bundle_has(root: Path) -> None:
    """fp32 where it is there, else the first that is; auto for one model excepts it from the rest."""
    with serving(root) as server, stub_of(server.target) as stub:
        answers_in(stub, "tiny", "fp32")
        answers_in(stub, "half", "fp16")
    environ = {"CONVVAE_SERVE_PRECISION": "int8, half=auto"}
    with serving(root, environ=environ) as server, stub_of(server.target) as stub:
        answers_in(stub, "tiny", "int8")
        answers_in(stub, "half", "fp16")


def test_the_open_inference_protocol_answers_in_the_precision(root: Path) -> None:
    """Its replies name the precision, and have the values of the graph that it runs."""
    with serving(root, "--precision", "tiny=fp16") as server, inference_stub(server.target) as stub:
        reply = stub.ModelInfer(decode_request(np.eye(LATENT_DIM, dtype=np.float32)), timeout=TIMEOUT_S)
    assert reply.parameters["precision"].string_param == "fp16"
    found = np.frombuffer(reply.raw_output_contents[1], "<f4").reshape(LATENT_DIM, -1)
    matrix = weights(SHAPE, LATENT_DIM, PRECISION_SEEDS["fp16"])["decode"]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-matrix)), atol=1e-5)


def test_a_bundle_without_the_precision_fails_alone(root: Path) -> None:
    """Its version is FAILED and says what it has, its metrics count it, and the other models are served."""
    with serving(root, "--precision", "half=int8") as server, stub_of(server.target) as stub:
        answers_in(stub, "tiny", "fp32")
        refusal = refused(stub.Sample, pb.SampleRequest(model=pb.ModelRef(name="half"), count=1))
        models = {m.name: m.versions for m in stub.ListModels(pb.ListModelsRequest(), timeout=5).models}
        assert model_info(server) == {("tiny", "fp32"), ("other", "fp32")}
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    (failed,) = models["half"]
    assert (failed.state, failed.error) == (
        pb.VERSION_STATE_FAILED,
        "has no int8 graphs: it has fp16",
    )


def test_versions_that_come_later_run_in_the_model_s_precision(tmp_path: Path) -> None:
    """A reload takes the wanted graphs, passes over a version without them; so does a model that returns."""
    publish_tiny(tmp_path, precisions=ALL)
    publish_tiny(tmp_path, "other", precisions=ALL)
    flags = (*WATCH, "--precision", "tiny=int8")
    with serving(tmp_path, *flags) as server, stub_of(server.target) as stub:
        answers_in(stub, "tiny", "int8")
        publish_tiny(tmp_path)
        failure = server.wait_for("model version cannot be loaded")
        assert (failure["version"], failure["error"]) == (2, "has no int8 graphs: it has fp32")
        answers_in(stub, "tiny", "int8")
        publish_tiny(tmp_path, precisions=("fp32", "int8"))
        server.wait_for("model version unloaded")
        answers_in(stub, "tiny", "int8", version=3)
        publish_tiny(tmp_path, "new", precisions=ALL)
        shutil.rmtree(tmp_path / "tiny")
        server.wait_for("model removed")
        publish_tiny(tmp_path, precisions=ALL)
        wait_for_loads(server, 5)
        answers_in(stub, "tiny", "int8")
        answers_in(stub, "new", "fp32")
        assert model_info(server) == {("tiny", "int8"), ("other", "fp32"), ("new", "fp32")}


def test_graphs_that_nobody_compared_are_refused(tmp_path: Path) -> None:
    """An int8 graph without an entry for its accuracy makes the check fail, and the version before serves."""
    publish_tiny(tmp_path)
    folder = publish_tiny(tmp_path, precisions=("fp32", "int8"))
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    del manifest["accuracy"]["int8"]
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    reason = "accuracy has no entry for the int8 graphs, so their results are not checked"
    first, second = check_repository(tmp_path)
    assert not first.error
    assert second.error.startswith(reason)
    assert "\n" not in second.error
    with serving(tmp_path) as server, stub_of(server.target) as stub:
        answers_in(stub, "tiny", "fp32", version=1)
        assert reason in str(server.wait_for("model version cannot be loaded")["error"])
