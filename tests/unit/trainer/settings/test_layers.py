"""The origin of a setting: errors name the flag, the file or the preset, and a remedy."""

from pathlib import Path

import pytest

from convvae_trainer.errors import BadConfig
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config
from convvae_trainer.settings.layers import FLAGS, Layer
from support.commands import run_train


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latent_dmi = 3", "run.toml: latent_dmi is not a setting: did you mean latent_dim?"),
        ("qwertzuiop = 3", "run.toml: qwertzuiop is not a setting: docs/training/settings.md lists them"),
        (
            "[train]\nepochs = 3",
            "run.toml: train is not a setting: put settings at the top of the file, not into",
        ),
        ('"a\\nb" = 3', "run.toml: 'a\\nb' is not a setting"),
        ('latent_dim = "3"', "run.toml: latent_dim is '3': it must be of type int"),
        ("beta = -1", "run.toml: beta is -1.0: it must be from 0 to 10000"),
        ("image_size = 7", "run.toml: image_size is 7x7: each side must be from 8 to 256 pixels"),
        ('objective = "gan"', "run.toml: objective is 'gan': use ae, vae, vae-disl or vae-gan"),
        ('device = "tpu"', "run.toml: device is 'tpu': use auto"),
        ('dataset = ""', "run.toml: dataset is empty"),
        ("epochs = 1\nminutes = 2", "run.toml: epochs=1 and minutes=2.0 are both set: give one of them"),
        (
            "sigma = 0.1\nlikelihood = 'bernoulli'",
            "run.toml: sigma=0.1 needs likelihood=gaussian, not likelihood=bernoulli",
        ),
    ],
)
def test_a_refusal_names_the_file(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    text: str,
    message: str,
) -> None:
    """An error in a settings file is one line, with the file and the key."""
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(text)
    dataset = [] if "dataset" in text else ["--dataset", "digits"]
    assert run_train(monkeypatch, "fit", "--config", "run.toml", "--run-dir", "run", *dataset) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--latent-dim", "0"], "--latent-dim is 0: it must be from 1 to 65536"),
        (["--objective", "gan"], "--objective is 'gan': use ae"),
        (["--image-size", "-1"], "--image-size is '-1': give H or HxW"),
        (["--image-size", "28x"], "--image-size is '28x': give H or HxW"),
        (["--image-size", "1x1000"], "--image-size is 1x1000: each side must be from 8 to 256 pixels"),
        (
            ["--gan-share", "0.4"],
            "--gan-share 0.4 is not used by objective=vae (the default): use it with vae-disl",
        ),
        (["--no-adaptive-weight"], "--no-adaptive-weight is not used by objective=vae (the default)"),
        (
            ["--preset", "mnist", "--likelihood", "gaussian"],
            (
                "binarize=dynamic (preset mnist) needs likelihood=bernoulli, not --likelihood gaussian;"
                " add --binarize none or omit --likelihood\n"
            ),
        ),
        (
            ["--preset", "mnist", "--objective", "ae"],
            (
                "kl_warmup_epochs=5.0 (preset mnist) is not used by --objective ae: use it with vae or"
                " vae-gan; add --kl-warmup-epochs 0 or omit --objective\n"
            ),
        ),
        (
            ["--preset", "cifar10", "--sigma", "0.3"],
            (
                "--sigma 0.3 needs likelihood=gaussian, not likelihood=discretised-logistic (preset cifar10);"
                " omit --sigma\n"
            ),
        ),
    ],
)
def test_a_refusal_names_the_flag_or_the_preset(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    """The error shows a flag as it is typed. For a value of a preset it says which flag to add."""
    words = ["fit", "--dataset", "digits", "--run-dir", str(tmp_path / "run"), *arguments]
    assert run_train(monkeypatch, *words) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("preset", "flags"),
    [
        ({"binarize": "dynamic"}, {"likelihood": "gaussian"}),
        ({"kl_warmup_epochs": 5.0}, {"objective": "ae"}),
        ({"objective": "vae-gan"}, {"likelihood": "bernoulli"}),
    ],
)
def test_what_is_advised_helps(preset: dict[str, object], flags: dict[str, object]) -> None:
    """The settings become valid with the flag that the error names, and also without the other flag."""
    below = Layer({"dataset": "x", **preset}, "preset p")
    with pytest.raises(BadConfig) as raised:
        config_from(below, Layer(flags, FLAGS))
    advice = str(raised.value).partition("; add --")[2]
    name, value = advice.partition(" or omit")[0].split(" ")
    kind = type(getattr(Config(dataset="x"), name.replace("-", "_")))
    added = {name.replace("-", "_"): kind(value)}
    assert isinstance(config_from(below, Layer({**flags, **added}, FLAGS)), Config)
    assert isinstance(config_from(below), Config)


def test_a_runs_own_settings_are_not_to_be_changed() -> None:
    """If a flag contradicts the settings of a run, the error says to omit the flag."""
    saved = Layer({"dataset": "x", "likelihood": "gaussian"}, "the run", is_fixed=True)
    message = (
        "--binarize dynamic needs likelihood=bernoulli, not likelihood=gaussian (the run); omit --binarize"
    )
    with pytest.raises(BadConfig) as raised:
        config_from(saved, Layer({"binarize": "dynamic"}, FLAGS))
    assert str(raised.value) == message


def test_settings_without_an_origin_are_called_by_name() -> None:
    """A caller in Python sees the names of the fields."""
    with pytest.raises(BadConfig, match=r"^sigma=0.1 needs likelihood=gaussian, not likelihood=bernoulli$"):
        Config(dataset="x", sigma=0.1, likelihood="bernoulli")
