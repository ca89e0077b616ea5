"""A server of one model that has a name of its own here, and of a bundle that is no repository."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convvae import Client
from convvae.v1 import vae_pb2 as pb
from open_inference import inference_pb2, inference_pb2_grpc
from support.serving import ServerProcess, serving, start_failure
from support.tiny_bundle import SHAPE, publish_tiny
from support.wire import TIMEOUT_S, pixels, random_images, refused, stub_of

IMAGES = random_images(2, *SHAPE.as_tuple)
NAMES = ("vae", "tiny")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of the bundle `tiny` under the name `vae`."""
    root = tmp_path_factory.mktemp("bundle")
    shutil.copytree(publish_tiny(root / "published"), root / "models")
    with serving(root / "models", "--model-name", "vae") as server:
        yield server


@pytest.mark.parametrize("asked", ["", *NAMES])
def test_native_calls_find_it_under_both_names(server: ServerProcess, asked: str) -> None:
    """Replies have the name of the server, and so do the lists."""
    with stub_of(server.target) as stub:
        model = pb.ModelRef(name=asked)
        reply = stub.Encode(pb.EncodeRequest(model=model, pixels=pixels(IMAGES)), timeout=TIMEOUT_S)
        described = stub.GetModel(pb.GetModelRequest(model=model), timeout=TIMEOUT_S)
        listed = stub.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT_S).models
        pinned = pb.EncodeRequest(model=pb.ModelRef(name=asked, version=7), pixels=pixels(IMAGES))
        assert refused(stub.Encode, pinned).code is grpc.StatusCode.NOT_FOUND
    assert (reply.model.name, reply.model.version) == ("vae", 1)
    assert described.model.name == "vae"
    assert [model.name for model in listed] == ["vae"]


def test_health_knows_both_names(server: ServerProcess) -> None:
    """Probes may be written before the name is given."""
    with grpc.insecure_channel(server.target) as channel:
        statuses = health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest(), timeout=TIMEOUT_S)
    serving_names = {name for name, found in statuses.statuses.items() if found.status == 1}
    assert serving_names == {"", "convvae.v1.VaeService", "liveness", *NAMES}


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("graph", ["", ".encoder"])
def test_the_encoder_answers_under_the_plain_name(server: ServerProcess, model: str, graph: str) -> None:
    """Inference, metadata and readiness repeat the name that was asked for; statistics add up."""
    name = model + graph
    request = inference_pb2.ModelInferRequest(model_name=name, raw_input_contents=[IMAGES.tobytes()])
    request.inputs.add(name="image", datatype="UINT8", shape=IMAGES.shape)
    with grpc.insecure_channel(server.target) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        reply = stub.ModelInfer(request, timeout=TIMEOUT_S)
        metadata = stub.ModelMetadata(inference_pb2.ModelMetadataRequest(name=name), timeout=TIMEOUT_S)
        ready = stub.ModelReady(inference_pb2.ModelReadyRequest(name=name), timeout=TIMEOUT_S)
        asked = inference_pb2.ModelStatisticsRequest(name=name)
        (statistics,) = stub.ModelStatistics(asked, timeout=TIMEOUT_S).model_stats
        index = stub.RepositoryIndex(inference_pb2.RepositoryIndexRequest(), timeout=TIMEOUT_S).models
    with Client(server.target) as vae:
        mean = vae.encode(IMAGES).mean
    np.testing.assert_allclose(np.frombuffer(reply.raw_output_contents[0], "<f4"), mean.ravel(), rtol=1e-5)
    assert (reply.model_name, reply.model_version) == (name, "1")
    assert (metadata.name, [tensor.name for tensor in metadata.inputs]) == (name, ["image"])
    assert ready.ready
    assert statistics.name == "vae.encoder"
    assert statistics.inference_stats.success.count >= 1
    assert [each.name for each in index] == ["vae.encoder", "vae.decoder"]


def test_metrics_and_log_have_the_name_of_the_server(server: ServerProcess) -> None:
    """A dashboard has one row for the model."""
    assert server.wait_for("serving")["models"] == ["vae@1"]
    names = [name for name in server.metrics() if name.startswith("convvae_model_info{")]
    assert len(names) == 1
    assert 'model="vae"' in names[0]


def test_a_name_for_several_models_or_for_none_is_refused(zoo_root: Path, tmp_path: Path) -> None:
    """One line, before anything is loaded."""
    flags = ("--address", "127.0.0.1:0", "--model-name", "vae")
    assert start_failure("--models", str(zoo_root), *flags) == (
        f"--model-name is the name of one model, and {str(zoo_root)!r} has 3: colour, plain, tiny:"
        " give the folder of one of them to --models"
    )
    assert "--model-name needs one at the start" in start_failure("--models", str(tmp_path), *flags)
    message = start_failure("--models", str(zoo_root / "tiny"), *flags[:3], "a/b")
    assert message.startswith("--model-name: 'a/b' is not a model name")


def test_the_folder_of_a_model_is_followed(tmp_path: Path) -> None:
    """With `--watch`, a version that is published there is loaded beside the other and takes its place."""
    folder = publish_tiny(tmp_path).parent
    flags = ("--watch", "--watch-interval-s", "0.1", "--model-name", "vae")
    with serving(folder, *flags) as server, Client(server.target) as vae:
        assert vae.sample(1).version == 1
        publish_tiny(tmp_path, seed=1)
        assert server.wait_for("default version changed", 20)["version"] == 2
        found = vae.sample(1)
        assert (found.model, found.version) == ("vae", 2)
        publish_tiny(tmp_path, "other")
        shutil.rmtree(folder / "2")
        assert server.wait_for("default version changed", 20, version=1)
        assert not server.messages("model removed")


def test_a_bundle_that_is_replaced_is_loaded_again(tmp_path: Path) -> None:
    """With `--watch`, its files are followed; while they are gone, the model in memory serves on."""
    mount = tmp_path / "models"
    shutil.copytree(publish_tiny(tmp_path / "published"), mount)
    with serving(mount, "--watch", "--watch-interval-s", "0.1") as server, Client(server.target) as vae:
        before = vae.encode(IMAGES).mean
        mount.rename(tmp_path / "old")
        server.wait_for("repository cannot be listed: versions stay as they are", 20)
        np.testing.assert_array_equal(vae.encode(IMAGES).mean, before)
        shutil.copytree(publish_tiny(tmp_path / "published", seed=1), tmp_path / "new")
        (tmp_path / "new").rename(mount)
        server.wait_for("model version unloaded", 20)
        assert not np.array_equal(vae.encode(IMAGES).mean, before)


def test_check_takes_a_bundle_and_the_folder_of_a_model(tmp_path: Path) -> None:
    """One line per version, under the name in the manifest."""
    publish_tiny(tmp_path)
    folder = publish_tiny(tmp_path)
    for root, versions in ((folder, [2]), (folder.parent, [1, 2])):
        words = [sys.executable, "-m", "convvae_service", "check", str(root)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert [line.split()[0] for line in done.stdout.splitlines()] == [f"tiny@{n}" for n in versions]
