"""`make demo`: trains, exports, serves and calls a VAE with the commands that a user would type.

All files are written to the folder `demo/`, which each run replaces. The server listens on a free port of the
loopback interface and is stopped at the end.
"""

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from convvae_trainer.data.dataset import load_dataset
from convvae_trainer.settings.config import Config

DEMO = Path("demo")
BIN = Path(sys.executable).parent
SERVER_START_S = 30
TRAIN_MINUTES = 0.75
NUM_IMAGES = 64


def run(*words: str) -> None:
    """Print a command and run it."""
    print(f"\n$ {shlex.join(words)}", flush=True)
    subprocess.run([str(BIN / words[0]), *words[1:]], check=True)


def write_images(folder: Path) -> None:
    """Write digits of the test split as PNG files."""
    images = load_dataset(Config(dataset="digits")).test[:NUM_IMAGES]
    folder.mkdir(parents=True)
    for index, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(folder / f"digit-{index:02}.png")
    print(f"\nwrote {len(images)} held-out digits to {folder}/", flush=True)


def start_server(models: Path) -> tuple[subprocess.Popen[str], str]:
    """Start a server on a free port; return it with its address once it is ready."""
    words = ("convvae-serve", "--models", str(models), "--address", "127.0.0.1:0", "--metrics-address", "off")
    print(f"\n$ {shlex.join(words)} &", flush=True)
    flags = ("--log-format", "json", "--drain-delay-s", "0")
    log_file = DEMO / "server.log"
    with log_file.open("w") as log:
        server = subprocess.Popen([str(BIN / words[0]), *words[1:], *flags], stderr=log, text=True)
    started_s = time.monotonic()
    while time.monotonic() - started_s < SERVER_START_S and server.poll() is None:
        for line in log_file.read_text().splitlines():
            if line.startswith("{") and (entry := json.loads(line))["message"] == "serving":
                seconds = time.monotonic() - started_s
                print(f"serving {', '.join(entry['models'])} on {entry['address']} after {seconds:.1f} s")
                return server, entry["address"]
        time.sleep(0.05)
    server.kill()
    raise SystemExit(f"error: the server did not start:\n{log_file.read_text()}")


def main() -> None:
    """Run the demonstration; the first step that fails ends it."""
    started_s = time.monotonic()
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir()
    images, models = DEMO / "images", DEMO / "models"
    run(
        *("convvae-train", "fit", "--dataset", "digits", "--latent-dim", "16", "--width", "16"),
        *("--hidden", "256", "--batch-size", "64", "--minutes", str(TRAIN_MINUTES)),
        *("--run-dir", str(DEMO / "run")),
        *("--models", str(models), "--name", "digits"),
    )
    write_images(images)
    server, address = start_server(models)
    try:
        target = ("--target", address)
        run("convvae", "health", *target)
        run("convvae", "models", *target)
        run("convvae", "reconstruct", str(images), "--out", str(DEMO / "reconstructions.png"), *target)
        run("convvae", "sample", "-n", "64", "--seed", "7", "--out", str(DEMO / "samples.png"), *target)
        run("convvae", "encode", str(images), "--out", str(DEMO / "latents.npy"), *target)
        run("convvae", "score", *(str(images / f"digit-{i:02}.png") for i in range(8)), *target)
        embeddings = str(DEMO / "embeddings.parquet")
        run("convvae-embed", "run", str(images), embeddings, *target, "--model", "digits")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
    print(
        f"\nDone in {time.monotonic() - started_s:.0f} s. Look at {DEMO}/reconstructions.png"
        f" (each input above its reconstruction), {DEMO}/samples.png and the model card in"
        f" {models}/digits/1/MODEL_CARD.md.\n"
        f"Next: {BIN}/convvae-serve --models {models}"
    )


if __name__ == "__main__":
    main()
