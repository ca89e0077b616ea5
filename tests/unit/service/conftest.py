"""Fixtures: image files, arrays, and the command run in this process."""

import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from convvae_service.calls.running_call import RunningCall
from convvae_service.images import ModelInput
from convvae_service.pipeline.__main__ import main
from support.ended import Ended
from support.tiny_bundle import TINY_INPUT


@pytest.fixture
def tiny_input() -> ModelInput:
    """The input of the model `tiny`."""
    return TINY_INPUT


@pytest.fixture(scope="session")
def run_to_end() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a handler to its end, in whatever threads, and return its result or raise its error."""

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        outcomes: SimpleQueue[Any] = SimpleQueue()
        RunningCall(coroutine, outcomes.put).start()
        outcome = outcomes.get(timeout=20)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return run


@pytest.fixture
def images() -> NDArray[np.uint8]:
    """50 images of the model `tiny`."""
    return np.random.default_rng(0).integers(0, 256, (50, 8, 6, 1), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path, images: NDArray[np.uint8]) -> Path:
    """A folder of 12 image files of several kinds and sizes in subfolders, and of other files."""
    root = tmp_path / "pictures"
    for number in range(12):
        path = root / f"class-{number % 3}" / f"{number:02}.{('png', 'jpg', 'webp', 'JPEG')[number % 4]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[number, ..., 0]).resize((6 + number, 8)).save(path)
    (root / "labels.csv").write_text("no image")
    (root / ".hidden.png").write_bytes(b"")
    (root / ".cache").mkdir()
    (root / ".cache" / "x.png").write_bytes(b"")
    return root


@pytest.fixture
def embed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run `convvae-embed run` with these words, and return how it ended."""

    def run(*words: Any) -> Ended:
        monkeypatch.setattr(sys, "argv", ["convvae-embed", "run", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        code = caught.value.code
        assert isinstance(code, int)
        return Ended(code, *capsys.readouterr())

    return run
