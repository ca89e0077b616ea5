"""`convvae_trainer.fit`: the command's training as a function, in a process that has other work."""

import inspect
import json
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import convvae_trainer
from convvae_trainer import BadConfig, BadData, BadRun, Dataset, FittedRun, Interrupted, fit, load_dataset
from convvae_trainer.python.signature import DATA_SETTINGS
from convvae_trainer.settings.config import SETTINGS
from support.interruption import before_step
from support.run_comparison import assert_same
from support.tiny_run import TINY, write_blobs

# The settings of the data among those of a tiny run.
OWN = {name: value for name, value in TINY.items() if name in DATA_SETTINGS}


@pytest.fixture
def images(blobs: Path) -> np.ndarray[Any, Any]:
    """The images of `blobs` as an array."""
    return np.asarray(np.load(blobs))


def test_the_package_lists_its_functions() -> None:
    """Names are loaded on first use, and unknown ones are refused."""
    assert set(convvae_trainer.__all__) <= set(dir(convvae_trainer))
    for name in convvae_trainer.__all__:
        assert callable(getattr(convvae_trainer, name))
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        convvae_trainer.train  # type: ignore[attr-defined] # noqa: B018


def test_the_functions_stay_beside_the_wings() -> None:
    """A function is not hidden by a folder of the package, whatever was imported before."""
    import convvae_trainer.exports.publish
    import convvae_trainer.runs.fit

    for name in ("fit", "evaluate", "export", "load_dataset"):
        assert inspect.isfunction(getattr(convvae_trainer, name))


def test_a_path_is_trained_on(blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings are arguments by their names; the result has folder, figures and the metrics of each epoch."""
    run = fit(blobs, run_dir=tmp_path / "run", **{**TINY, "epochs": 2})
    assert isinstance(run, FittedRun)
    assert run.run_dir == tmp_path / "run"
    assert run.evaluation.bound.elbo is not None
    assert run.exported is None
    assert [line["epoch"] for line in run.metrics() if line["kind"] == "epoch"] == [1, 2]
    assert repr(run) == (
        f"FittedRun('{run.run_dir}', test ELBO {run.evaluation.bound.elbo:.2f} nats per image)"
    )
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (settings["latent_dim"], settings["dataset"]) == (TINY["latent_dim"], str(blobs))
    output = capsys.readouterr().out
    assert "training images of 12x10x1" in output
    assert "\x1b" not in output


def test_nothing_is_printed_without_progress(
    blobs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`progress=False` keeps both streams empty."""
    fit(str(blobs), run_dir=str(tmp_path / "run"), progress=False, **TINY)
    assert capfd.readouterr() == ("", "")


def test_the_same_settings_give_the_weights_of_the_command(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run from Python and one of `convvae-train fit` are equal bit by bit."""
    from convvae_trainer.cli.app import app

    fit(blobs, run_dir=tmp_path / "called", progress=False, **TINY)
    flags = [word for name, value in TINY.items() for word in ("--" + name.replace("_", "-"), str(value))]
    with pytest.raises(SystemExit) as ended:
        app(["fit", "--dataset", str(blobs), "--run-dir", str(tmp_path / "typed"), *flags])
    assert ended.value.code == 0
    assert_same(tmp_path / "called", tmp_path / "typed")


def test_arrays_are_trained_on(images: Any, blobs: Path, tmp_path: Path) -> None:
    """An array, as floats too, gives the run of the file with the same images; the record says so."""
    fit(blobs, run_dir=tmp_path / "file", progress=False, **TINY)
    for name, array in (("bytes", images), ("floats", images[..., np.newaxis] / 255)):
        fit(array, run_dir=tmp_path / name, labels=np.arange(80) % 2, progress=False, **TINY)
        assert_same(tmp_path / "file", tmp_path / name)
    record = json.loads((tmp_path / "bytes" / "run.json").read_text())
    assert record["data"]["name"] == "<array>"
    assert record["data"]["labels_sha256"] is not None


def test_a_loaded_data_set_is_trained_on(blobs: Path, tmp_path: Path) -> None:
    """It gives the run of its path, with the settings that it was loaded with in the record."""
    dataset = load_dataset(blobs, image_size=16, train_images=40, **OWN)
    assert isinstance(dataset, Dataset)
    assert dataset.train.shape[1:] == (16, 16, 1)
    fit(dataset, run_dir=tmp_path / "loaded", image_size=(16, 16), progress=False, **TINY)
    fit(blobs, run_dir=tmp_path / "path", image_size=16, train_images=40, progress=False, **TINY)
    assert_same(tmp_path / "loaded", tmp_path / "path")
    first, second = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("loaded", "path"))
    assert first == second


def test_a_run_is_exported_extended_and_started_from(images: Any, tmp_path: Path) -> None:
    """`models` exports; `resume` with epochs extends, also on an array; `start_from` takes a run."""
    run = fit(
        images, run_dir=tmp_path / "run", models=tmp_path / "models", name="blobs", progress=False, **TINY
    )
    assert run.exported is not None
    assert run.exported.folder == tmp_path / "models" / "blobs" / "1"
    assert "exported as" in repr(run)
    longer = fit(images, run_dir=run.run_dir, resume=True, epochs=6, progress=False)
    assert len([line for line in longer.metrics() if line["kind"] == "epoch"]) == 6
    for source in (run, run.run_dir, str(tmp_path / "models" / "blobs")):
        started = fit(
            255 - images,
            run_dir=tmp_path / f"from-{type(source).__name__}",
            start_from=source,
            progress=False,
            epochs=1,
            threads=1,
            device="cpu",
            precision="fp32",
        )
        record = json.loads((started.run_dir / "run.json").read_text())
        assert record["weights_from"] is not None


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"latent_dims": 4}, BadConfig, "latent_dims is not a setting: did you mean latent_dim"),
        ({"latent_dim": 0}, BadConfig, "latent_dim is 0: it must be from 1 to 65536"),
        ({"epochs": 1, "minutes": 1.0}, BadConfig, "epochs=1 and minutes=1.0 are both set"),
        ({"models": "models"}, BadConfig, "models and name go together"),
        ({"resume": True, "start_from": "x"}, BadConfig, "give one of them"),
        ({"start_from": "does/not/exist"}, BadConfig, "^start_from: does/not/exist is no run folder, and no"),
        ({"preset": "mnits"}, BadConfig, "unknown preset 'mnits'"),
        ({"dataset": "does/not/exist"}, BadData, "does/not/exist does not exist"),
        ({"dataset": np.zeros((4, 8, 8, 2))}, BadData, "the array of images has the shape"),
        ({"dataset": np.zeros((4, 8, 8)), "labels": np.zeros(3, int)}, BadData, "4 integers are needed"),
        ({"labels": np.zeros(80, int)}, BadConfig, "labels go with an array"),
        ({"train_images": 1000}, BadData, "give train_images 7"),
        ({"dataset": None}, BadConfig, "dataset is not set"),
    ],
)
def test_what_is_wrong_is_refused_as_an_exception(
    blobs: Path, tmp_path: Path, arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    """Errors have the documented types and name arguments, not flags; no folder is made."""
    with pytest.raises(kind, match=message):
        fit(**{"dataset": blobs, "run_dir": tmp_path / "run", **arguments})
    assert not (tmp_path / "run").exists()


def test_a_folder_with_a_run_is_refused_in_words_of_python(blobs: Path, tmp_path: Path) -> None:
    """The remedy names the argument."""
    fit(blobs, run_dir=tmp_path / "run", progress=False, **{**TINY, "epochs": 1})
    with pytest.raises(BadRun, match="already holds a run: resume continues it, another run_dir starts"):
        fit(blobs, run_dir=tmp_path / "run", **TINY)


def test_settings_of_loaded_data_are_refused(blobs: Path, tmp_path: Path) -> None:
    """The images are there already."""
    with pytest.raises(BadConfig, match="image_size: the data set is loaded already: give this to load_data"):
        fit(load_dataset(blobs), run_dir=tmp_path / "run", image_size=16)
    with pytest.raises(BadConfig, match="the data set is loaded already"):
        load_dataset(load_dataset(blobs))


def test_the_process_stays_as_it_was(blobs: Path, tmp_path: Path) -> None:
    """Threads and settings of torch are those from before, after a run and after an error."""
    torch.set_num_threads(2)
    before = (torch.backends.cudnn.allow_tf32, torch._functorch.config.donated_buffer)
    try:
        fit(blobs, run_dir=tmp_path / "run", progress=False, **TINY)
        with pytest.raises(BadData):
            fit("does/not/exist", run_dir=tmp_path / "other")
        assert torch.get_num_threads() == 2
        assert (torch.backends.cudnn.allow_tf32, torch._functorch.config.donated_buffer) == before
    finally:
        torch.set_num_threads(1)


def test_no_signal_handler_is_installed(blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call works in any thread, and handlers stay those of the program while it trains."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    seen: list[bool] = []
    with monkeypatch.context() as patch:
        before_step(patch, 1, lambda: seen.append(all(signal.getsignal(n) == h for n, h in before.items())))
        done: list[FittedRun] = []

        def work() -> None:
            done.append(fit(blobs, run_dir=tmp_path / "run", progress=False, **TINY))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(done) == 1
    assert seen == [True]


def test_caught_signals_save_a_checkpoint(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`catch_signals` stops with `Interrupted`, restores the handlers, and `resume` ends the run."""
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        before_step(patch, 5, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted, match="stopped by SIGINT at step 6; a checkpoint is saved"):
            fit(blobs, run_dir=tmp_path / "run", progress=False, catch_signals=True, **TINY)
    assert signal.getsignal(signal.SIGINT) == before
    fit(run_dir=tmp_path / "run", resume=True, progress=False)
    fit(blobs, run_dir=tmp_path / "whole", progress=False, **TINY)
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_signals_are_caught_in_the_main_thread_only(blobs: Path, tmp_path: Path) -> None:
    """Another thread is refused before anything is made."""
    errors: list[str] = []

    def work() -> None:
        try:
            fit(blobs, run_dir=tmp_path / "run", catch_signals=True, **TINY)
        except BadConfig as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == ["catch_signals works in the main thread only: leave it out in another one"]
    assert not (tmp_path / "run").exists()


def test_help_lists_every_setting() -> None:
    """The signature that a notebook shows has each setting of the command as an argument."""
    parameters = inspect.signature(fit).parameters
    assert set(SETTINGS) <= set(parameters)
    assert parameters["latent_dim"].default is None
    assert "settings" not in parameters
    assert "image_size" in inspect.signature(load_dataset).parameters


def test_presets_and_files_are_below_arguments(tmp_path: Path) -> None:
    """An argument overrides the settings file, and the file overrides the preset."""
    path = write_blobs(tmp_path / "blobs.npy", shape=(16, 16))
    (tmp_path / "my.toml").write_text("latent_dim = 6\nwidth = 8\ntrain_images = 40\n")
    fit(
        path, run_dir=tmp_path / "run", preset="mnist", config=tmp_path / "my.toml", width=4, epochs=1,
        hidden=16, threads=1, progress=False, device="cpu", precision="fp32",
    )  # fmt: skip
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (settings["latent_dim"], settings["width"], settings["blocks"]) == (6, 4, 1)
