"""A server that follows its repository: versions come, fail and go, and health and ListModels say so."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convvae.v1 import vae_pb2 as pb
from support.serving import serving
from support.spoilt_bundle import fail_at_run_time, flip_a_bit
from support.tiny_bundle import LATENT_DIM, SHAPE, publish_tiny, weights
from support.watched_models import INFO, INTERVAL_S, WATCH, states, version_called, wait_for_states
from support.wire import TIMEOUT_S, pixels, random_images, refused, stub_of, unpack

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def test_several_versions_at_once(tmp_path: Path) -> None:
    """With `latest:2` two versions answer those who pin them, and a new one takes the place of the lower."""
    for seed in (1, 2, 3):
        publish_tiny(tmp_path, seed=seed)
    publish_tiny(tmp_path, "other")
    flags = (*WATCH, "--versions", "all", "--versions", "tiny=latest:2")
    with serving(tmp_path, *flags) as server, stub_of(server.target) as stub:
        assert states(stub) == {
            "other": [(1, "SERVING", True)],
            "tiny": [(1, "NOT_LOADED", False), (2, "SERVING", False), (3, "SERVING", True)],
        }
        assert [version_called(stub, version=pin) for pin in (0, 2, 3)] == [3, 2, 3]
        described = stub.GetModel(pb.GetModelRequest(model=pb.ModelRef(name="tiny", version=2)), timeout=5)
        assert described.model.version == 2
        refusal = refused(stub.Sample, pb.SampleRequest(model=pb.ModelRef(name="tiny", version=1), count=1))
        assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
        publish_tiny(tmp_path, seed=4)
        publish_tiny(tmp_path, "other")
        last = [
            (1, "NOT_LOADED", False),
            (2, "NOT_LOADED", False),
            (3, "SERVING", False),
            (4, "SERVING", True),
        ]
        wait_for_states(stub, "tiny", last)
        wait_for_states(stub, "other", [(1, "SERVING", False), (2, "SERVING", True)])
        # Taking the newest away goes back to the one before it, and fetches the one before that.
        shutil.rmtree(tmp_path / "tiny" / "4")
        wait_for_states(stub, "tiny", [(1, "NOT_LOADED", False), (2, "SERVING", False), (3, "SERVING", True)])
        assert [version_called(stub, version=pin) for pin in (0, 2)] == [3, 2]
        gone = refused(stub.Sample, pb.SampleRequest(model=pb.ModelRef(name="tiny", version=4), count=1))
        assert gone.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (flip_a_bit, "encoder.onnx is damaged: its sha256 is "),
        (fail_at_run_time, "its graphs load but fail to decode: "),
        (lambda folder: (folder / "decoder.onnx").unlink(), "decoder.onnx is missing"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest is not valid JSON"),
    ],
)
def test_a_bad_version_leaves_the_old_one_serving(
    tmp_path: Path, spoil: Callable[[Path], object], reason: str
) -> None:
    """It shows in log, metrics and ListModels, and is tried again only when its files change."""
    root = tmp_path / "models"
    publish_tiny(root)
    staged = publish_tiny(tmp_path / "staging", seed=2)
    sound = tmp_path / "sound"
    shutil.copytree(staged, sound)
    spoil(staged)
    with (
        serving(root, *WATCH) as server,
        stub_of(server.target) as stub,
        grpc.insecure_channel(server.target) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="tiny"), timeout=60)
        assert next(watch).status == SERVING
        staged.rename(root / "tiny" / "2")
        server.wait_for("model version cannot be loaded", version=2)
        (model,) = stub.ListModels(pb.ListModelsRequest(), timeout=5).models
        assert [(v.version, v.state, v.is_default) for v in model.versions] == [
            (1, pb.VERSION_STATE_SERVING, True),
            (2, pb.VERSION_STATE_FAILED, False),
        ]
        assert model.versions[1].error.startswith(reason)
        assert version_called(stub) == 1
        # A model that comes later is loaded by a later look: by then the bad version has been passed over.
        for name in ("later", "still-later"):
            publish_tiny(root, name)
            wait_for_states(stub, name, [(1, "SERVING", True)])
        assert len(server.messages("model version cannot be loaded")) == 1
        server.wait_for_metric('convvae_reloads_total{model="tiny",result="failed"} 1.0')
        server.wait_for_metric('convvae_load_failures_total{model="tiny"} 1.0')
        shutil.copytree(sound, root / "tiny" / "2", dirs_exist_ok=True)
        wait_for_states(stub, "tiny", [(1, "NOT_LOADED", False), (2, "SERVING", True)])
        assert version_called(stub) == 2
        watch.cancel()
        with pytest.raises(grpc.RpcError):
            pytest.fail(f"health changed to {next(watch).status}")


def test_files_changed_under_the_same_number(tmp_path: Path) -> None:
    """A version that was removed and made anew is noticed; when the new files are bad, the old go on."""
    folder = publish_tiny(tmp_path, seed=1)
    images = random_images(2, *SHAPE.as_tuple)
    request = pb.EncodeRequest(pixels=pixels(images))
    flat = images.reshape(2, -1).astype(np.float32) / 255
    with serving(tmp_path, *WATCH) as server, stub_of(server.target) as stub:
        shutil.rmtree(folder)
        publish_tiny(tmp_path, seed=2)
        server.wait_for("model version unloaded", version=1)
        wait_for_states(stub, "tiny", [(1, "SERVING", True)])
        mean = unpack(stub.Encode(request, timeout=TIMEOUT_S).mean)
        expected = (flat @ weights(SHAPE, LATENT_DIM, 2)["encode"])[:, :LATENT_DIM]
        np.testing.assert_allclose(mean, expected, atol=1e-5)
        flip_a_bit(folder)
        server.wait_for("model version cannot be loaded", version=1)
        (model,) = stub.ListModels(pb.ListModelsRequest(), timeout=5).models
        assert model.versions[0].state == pb.VERSION_STATE_SERVING
        assert model.versions[0].error.startswith("encoder.onnx is damaged")
        np.testing.assert_allclose(unpack(stub.Encode(request, timeout=TIMEOUT_S).mean), expected, atol=1e-5)
        server.wait_for_metric(INFO % 1)


def test_models_come_and_go(tmp_path: Path) -> None:
    """A server that watches starts over an empty folder; health follows each model as it comes and goes."""
    root = tmp_path / "models"
    root.mkdir()
    with (
        serving(root, *WATCH) as server,
        stub_of(server.target) as stub,
        grpc.insecure_channel(server.target) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)

        def check(name: str) -> int:
            return int(health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5).status)

        overall = health.Watch(health_pb2.HealthCheckRequest(), timeout=60)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="tiny"), timeout=60)
        assert (next(overall).status, next(watch).status) == (NOT_SERVING, SERVICE_UNKNOWN)
        assert refused(stub.Sample, pb.SampleRequest(count=1)).code is grpc.StatusCode.NOT_FOUND
        bad = publish_tiny(tmp_path / "staging")
        (bad / "encoder.onnx").unlink()
        bad.parent.rename(root / "tiny")
        assert next(watch).status == NOT_SERVING
        publish_tiny(root, seed=1)
        assert (next(watch).status, next(overall).status) == (SERVING, SERVING)
        assert version_called(stub, "") == 2
        publish_tiny(root, "other")
        wait_for_states(stub, "other", [(1, "SERVING", True)])
        assert check("other") == SERVING
        shutil.rmtree(root / "tiny")
        assert next(watch).status == SERVICE_UNKNOWN
        assert (
            refused(health.Check, health_pb2.HealthCheckRequest(service="tiny")).code
            is grpc.StatusCode.NOT_FOUND
        )
        assert list(states(stub)) == ["other"]
        refusal = refused(stub.Sample, pb.SampleRequest(model=pb.ModelRef(name="tiny"), count=1))
        assert refusal.code is grpc.StatusCode.NOT_FOUND
        assert check("") == SERVING
        shutil.rmtree(root / "other")
        assert next(overall).status == NOT_SERVING
        publish_tiny(root)
        assert (next(watch).status, next(overall).status) == (SERVING, SERVING)
        assert version_called(stub) == 1
        assert not server.noise


def test_serve_rolls_back_and_stays(tmp_path: Path) -> None:
    """`--serve` makes a lower version the default, beside newer ones or alone, whatever comes later."""
    for seed in (1, 2, 3):
        publish_tiny(tmp_path, seed=seed)
    with (
        serving(tmp_path, *WATCH, "--serve", "tiny=1", "--versions", "latest:2") as server,
        stub_of(server.target) as stub,
    ):
        listed = [(1, "SERVING", True), (2, "NOT_LOADED", False), (3, "SERVING", False)]
        assert states(stub)["tiny"] == listed
        assert [version_called(stub, version=pin) for pin in (0, 1, 3)] == [1, 1, 3]
        publish_tiny(tmp_path, seed=4)
        listed[2:] = [(3, "NOT_LOADED", False), (4, "SERVING", False)]
        wait_for_states(stub, "tiny", listed)
        assert version_called(stub) == 1
        # The pinned version is what was asked for: without it there is no other default.
        shutil.rmtree(tmp_path / "tiny" / "1")
        wait_for_states(
            stub, "tiny", [(2, "NOT_LOADED", False), (3, "NOT_LOADED", False), (4, "SERVING", False)]
        )
        refusal = refused(stub.Sample, pb.SampleRequest(count=1))
        assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
        assert refusal.message.startswith("version 1 is the default version of model")
        assert version_called(stub, version=4) == 4
        with grpc.insecure_channel(server.target) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            reply = health.Check(health_pb2.HealthCheckRequest(service="tiny"), timeout=5)
            assert reply.status == NOT_SERVING
    with serving(tmp_path, "--serve", "tiny=2") as server, stub_of(server.target) as stub:
        assert states(stub)["tiny"] == [
            (2, "SERVING", True),
            (3, "NOT_LOADED", False),
            (4, "NOT_LOADED", False),
        ]


def test_nothing_is_followed_without_watch(tmp_path: Path) -> None:
    """By default a server keeps what it started with, even when the files go."""
    publish_tiny(tmp_path)
    with serving(tmp_path, "--watch-interval-s", str(INTERVAL_S)) as server, stub_of(server.target) as stub:
        publish_tiny(tmp_path)
        shutil.rmtree(tmp_path / "tiny" / "1")
        time.sleep(5 * INTERVAL_S)
        assert version_called(stub) == 1
        assert states(stub)["tiny"] == [(1, "SERVING", True)]
