"""`convvae-train` as it is typed: digits to a bundle, and a run that is killed and resumed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convvae_service.bundle import read_bundle
from convvae_trainer.runs.checkpoint import read_checkpoint

TRAIN = [sys.executable, "-m", "convvae_trainer"]
# The same command, with ten checkpoints a second: the first one would come after 20 seconds.
TRAIN_AND_SAVE = """
import convvae_trainer.runs.loop
convvae_trainer.runs.loop.CHECKPOINT_EVERY_S = 0.1
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
    assert "the last 180 of 1797 images after a shuffle by seed 0 are held out" in done.stdout
    folder = tmp_path / "models" / "digits" / "1"
    assert f"exported      {folder}" in done.stdout
    bundle = read_bundle(folder)
    assert bundle.manifest.training.dataset == "digits"
    assert {path.name for path in folder.iterdir()} == {
        *("manifest.json", "encoder.onnx", "decoder.onnx", "MODEL_CARD.md", "metrics.jsonl"),
        *("reconstructions.png", "samples.png"),
    }
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["command"].startswith("convvae-train fit --dataset digits --epochs 1 ")


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
