"""The command `convvae` in a process of its own, against a real server."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.serving import ServerProcess, serving

pytestmark = pytest.mark.one_front


def convvae(
    *words: object, target: str | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one command."""
    environ = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    environ.pop("CONVVAE_TARGET", None)
    if target:
        environ["CONVVAE_TARGET"] = target
    return subprocess.run(
        [sys.executable, "-m", "convvae", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environ,
        timeout=60,
        check=False,
    )


def succeed(*words: object, target: str, cwd: Path) -> str:
    """Run one command that must succeed, and return what it printed."""
    done = convvae(*words, target=target, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_pictures_to_vectors_and_back(tiny_server: ServerProcess, tmp_path: Path) -> None:
    """Sample -> a folder -> encode -> decode -> reconstruct -> score, each by its file."""
    target = tiny_server.target
    text = succeed("sample", "-n", 5, "--seed", 7, "--out", "pictures", target=target, cwd=tmp_path)
    assert text == "pictures: 5 images of seed 7 by tiny@1 (fp32)\n"
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == [f"{row:06}.png" for row in range(5)]

    report = json.loads(
        succeed("encode", "pictures", "--out", "z.npy", "--json", target=target, cwd=tmp_path)
    )
    assert report == {
        "model": "tiny",
        "version": 1,
        "precision": "fp32",
        "out": "z.npy",
        "rows": 5,
        "latent_dim": 4,
        "inputs": [f"pictures/{name}" for name in names],
        "left_out": {},
    }
    assert np.load(tmp_path / "z.npy").shape == (5, 4)

    succeed("encode", "pictures", "--log-variance", "--out", "q.npz", target=target, cwd=tmp_path)
    succeed("decode", "q.npz", "--out", "x.npy", "--model", "tiny@1", target=target, cwd=tmp_path)
    succeed("reconstruct", "pictures", "--out", "r.npz", target=target, cwd=tmp_path)
    with np.load(tmp_path / "r.npz") as stored:
        assert np.array_equal(stored["images"], np.load(tmp_path / "x.npy"))
    succeed("reconstruct", "pictures", "--out", "r.png", target=target, cwd=tmp_path)
    with Image.open(tmp_path / "r.png") as picture:
        assert picture.mode == "L"
        assert picture.height > picture.width // 2

    text = succeed("score", "x.npy", "--out", "s.npz", target=target, cwd=tmp_path)
    assert "nats per image, tiny@1 (fp32)" in text
    report = json.loads(
        succeed("score", "x.npy", "--num-samples", 2, "--seed", 1, "--json", target=target, cwd=tmp_path)
    )
    assert report["seed"] == 1
    assert len(report["elbo"]) == 5
    assert report["mean"]["elbo"] == pytest.approx(sum(report["elbo"]) / 5)


def test_models_are_listed(zoo_server: ServerProcess, tmp_path: Path) -> None:
    """`models` prints a table, or JSON for machines."""
    table = succeed("models", target=zoo_server.target, cwd=tmp_path)
    assert "colour" in table
    models = json.loads(succeed("models", "--json", target=zoo_server.target, cwd=tmp_path))["models"]
    assert [model["name"] for model in models] == ["colour", "plain", "tiny"]
    assert [version["is_default"] for version in models[2]["versions"]] == [False, True]


def test_messages_of_the_server_have_the_words_of_the_command_line(
    zoo_server: ServerProcess, tmp_path: Path
) -> None:
    """The command line says `--model` and `convvae models`, not the names of the wire."""
    several = convvae("sample", "--out", "x.npy", target=zoo_server.target, cwd=tmp_path).stderr
    assert several.startswith("error: --model is empty, and this server has several models: ")
    unknown = convvae(
        "sample", "--out", "x.npy", "--model", "x", target=zoo_server.target, cwd=tmp_path
    ).stderr
    assert "no model 'x' on this server: convvae models lists the models" in unknown
    assert "ListModels" not in unknown


def test_health_has_three_exit_codes(tiny_server: ServerProcess) -> None:
    """0 serving, 1 not serving, 2 nobody there."""
    target = ("--target", tiny_server.target)
    assert convvae("health", *target).stdout == "SERVING\n"
    assert convvae("health", *target, "--service", "tiny").returncode == 0
    unknown = convvae("health", *target, "--service", "nobody", "--json")
    assert (unknown.returncode, json.loads(unknown.stdout)["status"]) == (1, "SERVICE_UNKNOWN")
    nobody = convvae("health", "--target", "127.0.0.1:1", "--timeout", 5)
    assert nobody.returncode == 3
    assert nobody.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["encode", "floats.npy", "--out", "z.npy"], 2, "error: images: the dtype is float32"),
        (["encode", "none.png", "--out", "z.npy"], 2, "error: none.png does not exist"),
        (["encode", "text.png", "--out", "z.npy"], 2, "error: text.png: not a JPEG, PNG or WebP image"),
        (["encode", "empty", "--out", "z.npy"], 2, "error: no images"),
        (["encode", "text.png", "--out", "z.png"], 2, "error: cannot write z.png: give .npy, .npz"),
        (["encode", "text.png", "--out", "floats.npy"], 2, "error: floats.npy exists; pass --force"),
        (["decode", "floats.npy", "--out", "x"], 2, "error: latents: shape is (2, 8, 6); it must be (N, Z)"),
        (["sample", "-n", "0", "--out", "x"], 2, "error: --count is 0"),
        (["sample", "--temperature", "-1", "--out", "x"], 2, "error: --temperature is -1.0"),
        (["sample", "--out", "x", "--model", "nobody"], 2, "error: "),
        (["sample", "--out", "x", "--target", "127.0.0.1:1", "--retries", "0"], 3, "error: 127.0.0.1:1: "),
        (["sample", "--out", "x", "--timeout", "0"], 2, "error: --timeout is 0.0"),
        (["sample", "--out", "x", "--target", "vae:5", "--token-file", "token"], 2, "error: the token would"),
    ],
)
def test_errors_are_one_line(
    tiny_server: ServerProcess, tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    """A failure is one line on stderr, an exit code, and no file."""
    np.save(tmp_path / "floats.npy", np.zeros((2, 8, 6), np.float32))
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "token").write_text("s3cret\n")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    done = convvae(*words, target=tiny_server.target, cwd=tmp_path)
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert (done.returncode, done.stdout) == (code, "")
    assert sorted(tmp_path.rglob("*")) == before


def test_wrong_usage_and_version() -> None:
    """Wrong usage ends with 2; --version prints the version."""
    assert convvae("sample").returncode == 2
    assert convvae("smaple").returncode == 2
    assert convvae("--version").stdout.startswith("convvae ")


@pytest.mark.parametrize(
    ("code", "advice", "exit_code"),
    [
        ("sys.modules['typer'] = None; from convvae.__main__ import main; main()", "pip install convvae", 2),
        (
            "sys.modules['PIL'] = None; from convvae.pictures import encode_png; encode_png([])",
            "pip install Pillow",
            1,
        ),
    ],
)
def test_missing_package_is_named(code: str, advice: str, exit_code: int) -> None:
    """A package that is not there is named, with what to install."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == exit_code
    assert advice in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", ["encode", "reconstruct", "score"])
def test_a_file_that_is_refused_is_named(tiny_server: ServerProcess, tmp_path: Path, command: str) -> None:
    """The user reads the file's name, not its index in the request."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a", "b", "d"):
        Image.new("L", (6, 8)).save(pictures / f"{name}.png")
    (pictures / "c.png").write_bytes(b"no picture")
    out = () if command == "score" else ("--out", tmp_path / "out.npy")
    done = convvae(command, pictures, *out, target=tiny_server.target)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {pictures / 'c.png'}: not a JPEG, PNG or WebP image (INVALID")
    assert not (tmp_path / "out.npy").exists()


def test_a_proxy_is_not_asked_for_this_machine(tiny_server: ServerProcess) -> None:
    """A proxy in the environment does not come between a client and a server on loopback."""
    environ = {**os.environ, "http_proxy": "http://127.0.0.1:9", "grpc_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "convvae", "health", "--target", tiny_server.target]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "SERVING\n")


def test_a_grid_that_cannot_be_drawn_costs_no_call(tiny_server: ServerProcess, tmp_path: Path) -> None:
    """More images than a picture shows are refused before they are made."""
    before = calls_by(tiny_server)
    words = ("sample", "-n", 5000, "--out", tmp_path / "x.png")
    done = convvae(*words, target=tiny_server.target)
    assert done.returncode != 0
    assert "a grid shows up to 4096 images, not 5000" in done.stderr
    assert calls_by(tiny_server) == before


def calls_by(server: ServerProcess) -> dict[str, float]:
    """Return the calls that the server has counted, by method and code."""
    return {name: value for name, value in server.metrics().items() if name.startswith("convvae_calls_total")}


def test_health_waits_for_a_server_that_starts(tiny_root: Path) -> None:
    """`--wait` bridges the time until SERVING, and ends with the last answer when the time is up."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    words = ["health", "--target", address, "--wait", "30"]
    waiting = subprocess.Popen([sys.executable, "-m", "convvae", *words], stdout=subprocess.PIPE, text=True)
    with serving(tiny_root, "--address", address):
        output, _ = waiting.communicate(timeout=60)
    assert (waiting.returncode, output) == (0, "SERVING\n")
    assert convvae("health", "--target", "127.0.0.1:1", "--wait", 0.3).returncode == 3
