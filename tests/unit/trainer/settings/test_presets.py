"""Presets: a layer below file and flags."""

from pathlib import Path

import pytest
import torch

from bench.mnist_likelihood import PROTOCOL
from convvae_trainer.cli import fit as cli_fit
from convvae_trainer.commands import fit as commands
from convvae_trainer.errors import BadConfig
from convvae_trainer.settings import presets
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config
from convvae_trainer.settings.presets import PRESETS, preset_settings
from convvae_trainer.step.train_state import TrainState
from support.commands import run_train

SHAPES = {
    "mnist": (28, 28, 1),
    "fashion-mnist": (28, 28, 1),
    "cifar10": (32, 32, 3),
    "faces64": (64, 64, 3),
    "colour32": (32, 32, 3),
    "colour64": (64, 64, 3),
}


def test_every_preset_is_listed() -> None:
    """Functions, names, help of the flag and documentation agree."""
    assert [function.__name__ for function in PRESETS.values()] == [
        name.replace("-", "_") for name in PRESETS
    ]
    assert set(presets.__all__) == {"PRESETS", "preset_settings", *(f.__name__ for f in PRESETS.values())}
    settings = Path(__file__).parents[4] / "docs" / "training" / "settings.md"
    text = settings.read_text().partition("## Presets")[2]
    help_text = str(cli_fit.fit.__annotations__["preset"].__metadata__[0].help)
    for name in PRESETS:
        assert f"| `{name}` |" in text
        assert name in help_text


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains(name: str) -> None:
    """The settings of a preset are valid, and a step on images of its shape is finite."""
    config = config_from(preset_settings(name), {"dataset": "x"})
    train_state = TrainState(config, shape=SHAPES[name], device=torch.device("cpu"))
    height, width, channels = SHAPES[name]
    images = torch.randint(0, 256, (2, channels, height, width), dtype=torch.uint8)
    train_state.step(images, learning_rate=config.learning_rate, beta=config.beta, fraction=0.5)
    means = train_state.step_metrics.means()
    assert (means["steps"], means["skipped_steps"]) == (1, 0)


def test_mnist_is_the_protocol_that_is_measured() -> None:
    """The preset has the settings of the measured likelihood: 50,000 images, as published figures have."""
    same = {"minutes": 60.0, "device": "cpu"}
    measured = config_from(PROTOCOL, same)
    assert config_from(preset_settings("mnist"), same) == measured
    assert measured.train_images == 50_000


@pytest.mark.parametrize("name", ["faces64", "colour32", "colour64"])
def test_presets_of_an_image_size_need_a_data_set(name: str) -> None:
    """They have an image size and no data set. The other presets name a data set."""
    assert preset_settings(name)["image_size"] == SHAPES[name][:2]
    with pytest.raises(BadConfig, match="dataset is not set"):
        config_from(preset_settings(name))
    assert {preset_settings(name).get("dataset") for name in PRESETS} == {
        *("mnist", "fashion-mnist", "cifar10"),
        None,
    }


def test_file_and_flags_win() -> None:
    """A later layer overrides the preset. The defaults of an objective follow the objective."""
    config = config_from(preset_settings("mnist"), {"latent_dim": 8, "epochs": 2}, {"latent_dim": 9})
    assert (config.latent_dim, config.blocks, config.epochs, config.minutes) == (9, 1, 2, None)
    plain = config_from(preset_settings("faces64"), {"dataset": "x", "objective": "vae"})
    assert plain.likelihood == Config(dataset="x").likelihood == "auto"
    assert config_from(preset_settings("faces64"), {"dataset": "x"}).likelihood == "gaussian"


@pytest.mark.parametrize(
    ("name", "known"), [("fashion_mnist", "fashion-mnist"), ("MNIST", "mnist"), ("CIFAR-10", "cifar10")]
)
def test_a_name_may_be_written_in_several_ways(name: str, known: str) -> None:
    """Case, dashes and underscores do not matter."""
    assert preset_settings(name) == PRESETS[known]()


def test_no_preset_is_no_settings() -> None:
    """Without a preset there are no settings. A caller's change of a preset does not reach other callers."""
    assert preset_settings(None) == {}
    preset_settings("mnist")["latent_dim"] = 1
    assert preset_settings("mnist")["latent_dim"] == 40


@pytest.mark.parametrize(("name", "near"), [("mnits", "mnist"), ("faces", "faces64"), ("cifar", "cifar10")])
def test_an_unknown_preset_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, near: str
) -> None:
    """The error has the nearest name and all names, and no folder is made."""
    assert run_train(monkeypatch, "fit", "--preset", name, "--run-dir", str(tmp_path / "run")) == 2
    message = f"error: unknown preset '{name}': did you mean '{near}'? The presets are {', '.join(PRESETS)}\n"
    assert capsys.readouterr().err == message
    assert not (tmp_path / "run").exists()


def test_the_flag_reaches_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`--preset` is the lowest layer of what is trained: under --config, and that under the flags."""
    seen: list[Config] = []

    def refuse(config: Config, *_: object, **__: object) -> None:
        seen.append(config)
        raise BadConfig("seen")

    monkeypatch.setattr(commands, "run_fit", refuse)
    file = tmp_path / "run.toml"
    file.write_text("latent_dim = 7\nwidth = 5\n")
    words = (
        "fit",
        "--preset",
        "mnist",
        "--config",
        str(file),
        "--width",
        "6",
        "--run-dir",
        str(tmp_path / "r"),
    )
    assert run_train(monkeypatch, *words) == 2
    assert "seen" in capsys.readouterr().err
    expected = config_from(preset_settings("mnist"), {"latent_dim": 7, "width": 6})
    assert seen == [expected]
