"""The trainer's image: its runs on a read-only root publish into a volume that the service's image serves."""

import os
from pathlib import Path

import numpy as np
import pytest

from convvae import Client
from support.container import Image, Mount, serving
from support.waiting import wait_until

pytestmark = pytest.mark.timeout(7200)
FIT_TIMEOUT_S = 600.0
QUICK = ("--dataset=digits", "--epochs=1", "--latent-dim=4", "--width=8", "--hidden=32", "--batch-size=64")
PUBLISHED = ("--run-dir=/runs/digits", "--models=/models", "--name=digits")


@pytest.fixture
def volumes(trainer_image: Image, tmp_path: Path) -> list[Mount]:
    """The volumes of the compose file, empty, of the image's user."""
    user, group = trainer_image.config["User"].split(":")
    for name in ("runs", "models"):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, int(user), int(group))
    return [Mount(tmp_path / name, f"/{name}", writable=True) for name in ("runs", "models")]


def test_configuration(trainer_image: Image) -> None:
    """The image runs the trainer as a number that is not root, and prints its help without arguments."""
    config = trainer_image.config
    assert all(int(part) > 0 for part in config["User"].split(":"))
    assert (config["Entrypoint"], config["Cmd"]) == (["convvae-train"], ["--help"])
    assert config["StopSignal"] == "SIGTERM"
    ended = trainer_image.run([*config["Entrypoint"], *config["Cmd"]], tmpfs=["/tmp"])
    assert (ended.code, ended.err) == (0, "")
    assert "fit" in ended.out


def test_contents(trainer_image: Image) -> None:
    """The image holds what trains and exports, and nothing that builds."""
    packages = next((trainer_image.root / "opt/convvae/lib").glob("python3.*/site-packages"))
    present = {path.name for path in packages.iterdir()}
    assert {"convvae_trainer", "torch", "onnx", "onnxruntime"} <= present
    assert not present & {"pip", "hatchling", "pytest", "grpc_tools"}
    for folder in ("usr/bin", "usr/local/bin", "opt/convvae/bin"):
        programs = {path.name for path in (trainer_image.root / folder).glob("*")}
        assert not programs & {"cc", "gcc", "g++", "c++", "clang", "ld", "as", "make", "cargo", "go"}
    for absent in ("src", "project", "opt/build", "root/.cache", "etc/pip.conf", "etc/pip-ca.crt"):
        assert not (trainer_image.root / absent).exists()


def test_a_run_is_published_and_served(
    trainer_image: Image, service_image: Image, volumes: list[Mount], tmp_path: Path
) -> None:
    """One epoch of digits, then a second version, which a server that runs meanwhile takes up."""
    fit = [*trainer_image.config["Entrypoint"], "fit", *QUICK, *PUBLISHED]
    ended = trainer_image.run(fit, volumes, tmpfs=["/tmp"], timeout_s=FIT_TIMEOUT_S)
    assert ended.code == 0, ended.err
    models = Mount(volumes[1].source, "/models")
    with (
        serving(service_image, [models], tmp_path / "log", "--watch", "--watch-interval-s=0.2") as server,
        Client(server.target) as vae,
    ):
        images = np.zeros((3, 32, 32, 1), np.uint8)
        encoded = vae.encode(images)
        assert (encoded.model, encoded.version, encoded.mean.shape) == ("digits", 1, (3, 4))
        assert vae.decode(encoded.mean).images.shape == images.shape
        again = [word.replace("/runs/digits", "/runs/again") for word in fit]
        ended = trainer_image.run(again, volumes, tmpfs=["/tmp"], timeout_s=FIT_TIMEOUT_S)
        assert ended.code == 0, ended.err
        wait_until(lambda: vae.encode(images).version == 2)


def test_a_repository_of_somebody_else(trainer_image: Image, volumes: list[Mount], tmp_path: Path) -> None:
    """A volume that the image's user cannot write to is refused in one line before anything is trained."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o755)
    fit = [*trainer_image.config["Entrypoint"], "fit", *QUICK, *PUBLISHED]
    ended = trainer_image.run(fit, [volumes[0], Mount(closed, "/models", writable=True)], tmpfs=["/tmp"])
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.count("\n") == 1
    assert "/models" in ended.err
    assert list(volumes[0].source.iterdir()) == []
