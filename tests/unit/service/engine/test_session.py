"""The settings that reach ONNX Runtime, and the equality of bound and plain runs."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convvae_service.bundle import ImageShape, read_bundle
from convvae_service.engine import runtime
from convvae_service.engine.arena import Arenas
from convvae_service.engine.runtime import CUDA, choose_provider, make_session
from convvae_service.engine.stages import Engine
from convvae_service.server.process_memory import trim
from support.resident import resident_kib
from support.tiny_bundle import LATENT_DIM, SHAPE, encoder, publish_tiny

CPU: tuple[str, dict[str, Any]] = ("CPUExecutionProvider", {})
WIDE = ImageShape(height=256, width=256, channels=3)


def images_of(rows: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (rows, *SHAPE.as_tuple), np.uint8)


def latents_of(rows: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(rows, LATENT_DIM)).astype(np.float32)


def engines(root: Path, *, pads: bool = False) -> tuple[Engine, Engine]:
    """Return an engine that runs plainly and one that binds, of the same bundle."""
    bundle = read_bundle(publish_tiny(root))
    plain, bound = Engine(bundle, device="cpu"), Engine(bundle, device="cpu")
    for session in (bound._encoder, bound._decoder):
        assert session is not None
        assert not session.binds
        session.binds = True
    plain._pads = bound._pads = pads
    return plain, bound


def assert_same(plain: Engine, bound: Engine, rows: int, seed: int) -> None:
    """Check that every stage gives the same bits, types and shapes."""
    images, latents = images_of(rows, seed), latents_of(rows, seed)
    for name, inputs in (
        ("encode", (images,)),
        ("decode", (latents,)),
        ("decode_both", (latents,)),
        ("distort", (latents, images)),
    ):
        expected, actual = getattr(plain, name).run(inputs), getattr(bound, name).run(inputs)
        assert len(actual) == len(expected)
        for one, other in zip(expected, actual, strict=True):
            assert other.dtype == one.dtype
            np.testing.assert_array_equal(other, one, err_msg=f"{name}, {rows} rows")


@pytest.mark.parametrize("pads", [False, True])
def test_bound_runs_are_plain_runs(tmp_path: Path, pads: bool) -> None:
    """Each stage's results are the same bit for bit, padded or not, whatever sizes came before."""
    plain, bound = engines(tmp_path, pads=pads)
    bound.warm(8)
    for seed, rows in enumerate((5, 1, 8, 3, 2, 7, 64, 3)):
        assert_same(plain, bound, rows, seed)


def test_bound_results_are_the_callers_own(tmp_path: Path) -> None:
    """A later run does not change earlier results, and rows that are a view are bound correctly."""
    _, bound = engines(tmp_path)
    images = images_of(4)
    first = bound.encode.run((images,))
    copies = [array.copy() for array in first]
    bound.encode.run((images_of(4, seed=1),))
    for array, copy in zip(first, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    strided = images_of(8)[::2]
    np.testing.assert_array_equal(
        bound.encode.run((strided,))[0], bound.encode.run((np.ascontiguousarray(strided),))[0]
    )


def test_bound_runs_share_a_session(tmp_path: Path) -> None:
    """Lanes that run one engine at the same time, with different batch sizes, get their own rows."""
    plain, bound = engines(tmp_path, pads=True)
    failures: list[BaseException] = []

    def lane(number: int) -> None:
        try:
            for turn in range(30):
                assert_same(plain, bound, (number + turn) % 7 + 1, seed=100 * number + turn)
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            failures.append(error)

    lanes = [threading.Thread(target=lane, args=(number,)) for number in range(4)]
    for thread in lanes:
        thread.start()
    for thread in lanes:
        thread.join()
    assert not failures


def session_of(data: bytes, arenas: Arenas) -> Any:
    return make_session(data, name="tiny.onnx", provider=CPU, threads=1, arenas=arenas)


@pytest.mark.parametrize(("arena", "uses_arena"), [("keep", True), ("off", False)])
def test_the_arena_setting_reaches_the_runtime(arena: Any, uses_arena: bool) -> None:
    """ONNX Runtime's own copy of a session's options contains the setting."""
    options = session_of(encoder(SHAPE, LATENT_DIM), Arenas(use=arena)).get_session_options()
    assert options.enable_cpu_mem_arena is uses_arena


@pytest.mark.parametrize(("arena", "most_mib"), [("keep", None), ("off", 60.0)])
def test_memory_of_a_large_batch_is_kept_or_given_back(
    tmp_path: Path, arena: Any, most_mib: float | None
) -> None:
    """After a batch of 200 MiB the process has grown by that much with `keep`, and hardly with `off`."""
    publish_tiny(tmp_path, shape=WIDE, latent_dim=2)
    engine = Engine(read_bundle(tmp_path / "tiny" / "1"), device="cpu", arenas=Arenas(use=arena))
    engine.warm(1)
    before_mib = resident_mib()
    engine.encode.run((np.zeros((128, *WIDE.as_tuple), np.uint8),))
    growth_mib = resident_mib() - before_mib
    assert growth_mib > 90 if most_mib is None else growth_mib < most_mib


def resident_mib() -> float:
    """Return the resident memory of this process, after the C library has returned what it can."""
    # The server does so every 10 s; else it depends on what this process did before.
    trim()
    return resident_kib() / 1024


def test_no_answer_depends_on_the_arena(tmp_path: Path) -> None:
    """Results are bit-identical for every arena setting."""
    bundle = read_bundle(publish_tiny(tmp_path))
    found = [
        Engine(bundle, device="cpu", arenas=Arenas(use=arena)).encode.run((images_of(5),))
        for arena in ("keep", "off")
    ]
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_a_gpu_limit_is_an_option_of_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is passed in bytes; without one ONNX Runtime's own default holds."""
    onnxruntime = runtime.import_runtime()
    monkeypatch.setattr(runtime, "_DEVICE_NODES", ("/dev/null",))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    assert "gpu_mem_limit" not in choose_provider("cuda")[1]
    name, options = choose_provider("cuda:1", Arenas(max_gpu_bytes=2**30))
    assert (name, options["device_id"], options["gpu_mem_limit"]) == (CUDA, "1", "1073741824")
