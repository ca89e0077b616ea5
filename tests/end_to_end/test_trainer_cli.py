"""`convvae-train` as it is typed: digits to a bundle, and a run that is killed and resumed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convvae_service.bundle import read_bundle
from convvae_trainer.data.pixel_hash import pixel_hashes
from convvae_trainer.runs.checkpoint import read_checkpoint
from convvae_trainer.runs.folder import RunFolder

TRAIN = [sys.executable, "-m", "convvae_trainer"]
# The same command, with ten checkpoints a second: the first one would come after 20 seconds.
TRAIN_AND_SAVE = """
import convvae_trainer.runs.training
convvae_trainer.runs.training.CHECKPOINT_EVERY_S = 0.1
from convvae_trainer.__main__ import main
main()
"""
SMALL = ["--width", "4", "--hidden", "32", "--latent-dim", "8", "--precision", "fp32"]


def train(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TRAIN, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_digits_become_a_bundle(tmp_path: Path) -> None:
    """One command trains on digits and publishes a version that verifies, with its pictures."""
    done = train(
        *("fit", "--dataset", "digits", "--epochs", "1", "--run-dir", str(tmp_path / "run"), *SMALL),
        *("--models", str(tmp_path / "models"), "--name", "digits"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "test       168 of 1797 images are held out: the hash of their pixels falls into" in done.stdout
    assert "validation 90 of 1629 training images, by the hash of their pixels" in done.stdout
    assert "classes    10: 0 (" in done.stdout
    folder = tmp_path / "models" / "digits" / "1"
    assert f"exported      {folder}" in done.stdout
    bundle = read_bundle(folder)
    assert bundle.manifest.training.dataset == "digits"
    assert {path.name for path in folder.iterdir()} == {
        *("manifest.json", "encoder.onnx", "decoder.onnx", "MODEL_CARD.md", "metrics.jsonl"),
        *("reconstructions.png", "samples.png", "trained_on.bin"),
    }
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["command"].startswith("convvae-train fit --dataset digits --epochs 1 ")


@pytest.mark.slow
def test_a_file_more_changes_no_image_that_is_trained_on(tmp_path: Path) -> None:
    """After one file more, a new run trains on the same images, and at most on the new one besides."""
    folder = tmp_path / "photos"
    folder.mkdir()
    images = np.random.default_rng(0).integers(256, size=(241, 12, 10), dtype=np.uint8)
    known: list[set[int]] = []
    for last, name in ((240, "first"), (241, "second")):
        for number, pixels in enumerate(images[:last]):
            # The last image is the first file.
            Image.fromarray(pixels).save(folder / f"{(number + 1) % 241:03}.png")
        done = train(
            "fit", "--dataset", str(folder), "--run-dir", str(tmp_path / name), "--epochs", "1", *SMALL
        )
        assert done.returncode == 0, done.stderr
        trained_on = RunFolder.open(tmp_path / name).read_trained_on()
        assert trained_on is not None
        known.append(set(trained_on.tolist()))
    hashes = pixel_hashes(images[..., None]).tolist()
    held_out = {value for value in hashes if value * 10 < 2**64}
    validation = {value for value in hashes if value % 2**32 * 20 < 2**32} - held_out
    assert known[0] == set(hashes[:240]) - held_out - validation
    assert known[1] == set(hashes) - held_out - validation
    # The first model's training images are none of those that are evaluated, and the other way round.
    for name in ("first", "second"):
        found = train("evaluate", str(tmp_path / name), "--dataset", str(folder), "--json")
        assert json.loads(found.stdout)["left_out"] in (0, len(known[0]))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_resumes(tmp_path: Path, number: signal.Signals) -> None:
    """A run stopped by SIGTERM, or killed, goes on from its checkpoint with --resume alone."""
    run_dir = tmp_path / "run"
    checkpoint = run_dir / "checkpoint.safetensors"
    # A kill saves nothing: there has to be a checkpoint before it, and time left for the run that goes on.
    is_killed = number == signal.SIGKILL
    minutes = "0.2" if is_killed else "0.1"
    arguments = ["fit", "--dataset", "digits", "--minutes", minutes, "--run-dir", str(run_dir), *SMALL]
    command = [sys.executable, "-c", TRAIN_AND_SAVE] if is_killed else TRAIN
    process = subprocess.Popen(
        [*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    awaited = checkpoint if is_killed else run_dir / "metrics.jsonl"
    while not awaited.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.stderr is not None
    error = process.stderr.read()
    process.stderr.close()
    code = process.wait()
    if number == signal.SIGTERM:
        assert code == 128 + signal.SIGTERM
        assert error.startswith("stopped by SIGTERM at step ")
        assert f"convvae-train fit --resume --run-dir {run_dir}" in error
    else:
        assert code == -signal.SIGKILL
    step = read_checkpoint(checkpoint)[1]["progress"]["step"]
    assert step > 0
    done = train("fit", "--resume", "--run-dir", str(run_dir))
    assert done.returncode == 0, done.stderr
    assert f"resuming at step {step}\n" in done.stdout
    assert read_checkpoint(checkpoint)[1]["progress"]["step"] > step
    assert "test ELBO" in done.stdout
    assert (run_dir / "evaluation.json").is_file()
