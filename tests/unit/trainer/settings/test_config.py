"""Settings: ranges, files, flags, messages."""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convvae_trainer.errors import BadConfig
from convvae_trainer.runs.likelihood_choice import chosen_likelihood
from convvae_trainer.runs.schedules import effective_beta
from convvae_trainer.settings.assembly import config_from, to_json_object
from convvae_trainer.settings.config import Config
from convvae_trainer.settings.declaration import alternatives
from convvae_trainer.settings.image_size import parse_image_size
from convvae_trainer.settings.layers import read_settings
from convvae_trainer.settings.objectives import OBJECTIVES, settings_by_user
from convvae_trainer.step.train_state import TrainState

USED_BY = settings_by_user()
ADVERSARIAL = USED_BY["discriminator_width"]
# A value other than the default of each setting that only some objectives use.
OTHER: dict[str, Any] = {
    "sigma": 0.3,
    "binarize": "dynamic",
    "beta": 2.0,
    "kl_warmup_epochs": 4.0,
    "free_bits": 0.5,
    "importance_samples": 3,
    "terms": "distortion",
    "early_stop_epochs": 2,
    "adversarial_loss": "minimax",
    "adversarial_weight": 2.0,
    "adaptive_weight": False,
    "adversarial_start": 0.6,
    "gradient_penalty": 0.5,
    "discriminator_width": 3,
    "gan_share": 0.6,
}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "dataset is not set: name a data set (such as digits), a folder or a file"),
        ({"dataset": ""}, "dataset is empty"),
        ({"dataset": "digits", "latent_dmi": 3}, "latent_dmi is not a setting: did you mean latent_dim?"),
        ({"dataset": "digits", "latent_dim": 0}, "latent_dim is 0: it must be from 1 to 65536"),
        ({"dataset": "digits", "latent_dim": "32"}, "latent_dim is '32': it must be of type int"),
        ({"dataset": "digits", "latent_dim": True}, "latent_dim is True: it must be of type int"),
        ({"dataset": "digits", "seed": -1}, "seed is -1"),
        ({"dataset": "digits", "seed": 10**400}, "seed is 1000"),
        ({"dataset": "digits", "beta": 10**400}, "beta is out of range: it has 401 digits"),
        ({"dataset": "digits", "beta": float("inf")}, "beta is inf: it must be from 0 to 10000"),
        ({"dataset": "digits", "learning_rate": float("nan")}, "learning_rate is nan"),
        (
            {"dataset": "digits", "objective": "gan"},
            "objective is 'gan': use ae, vae, vae-disl or vae-gan",
        ),
        (
            {"dataset": "digits", "likelihood": "poisson"},
            "likelihood is 'poisson': use auto, bernoulli, gaussian or discretised-logistic",
        ),
        ({"dataset": "digits", "epochs": 2, "minutes": 1.0}, "epochs=2 and minutes=1.0 are both set"),
        ({"dataset": "digits", "device": "tpu"}, "device is 'tpu': use auto, cpu, cuda or cuda:N"),
        ({"dataset": "digits", "image_size": 7}, "image_size is 7x7: each side must be from 8 to 256 pixels"),
        ({"dataset": "digits", "image_size": [257, 32]}, "image_size is 257x32"),
        ({"dataset": "digits", "image_size": "x"}, "image_size is 'x': give H or HxW"),
        ({"dataset": "digits", "image_size": [1, 2, 3]}, "image_size is [1, 2, 3]"),
        (
            {"dataset": "digits", "likelihood": "gaussian", "binarize": "dynamic"},
            "binarize=dynamic needs likelihood=bernoulli, not likelihood=gaussian",
        ),
    ],
)
def test_a_bad_setting_is_named(values: dict[str, Any], message: str) -> None:
    """Every error names the setting and the allowed values."""
    with pytest.raises(BadConfig) as raised:
        config_from(values)
    assert message in str(raised.value)


@pytest.mark.parametrize(("text", "size"), [("64", (64, 64)), ("28x20", (28, 20)), (" 8X256 ", (8, 256))])
def test_image_sizes_are_one_side_or_two(text: str, size: tuple[int, int]) -> None:
    """`H` is the side of a square, `HxW` is height by width."""
    assert parse_image_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-8", "8x", "x8", "8x8x8", "1e2", "٨", "9" * 30])
def test_other_image_sizes_are_refused(text: str) -> None:
    """Any other text is refused with an error."""
    with pytest.raises(BadConfig, match="image_size"):
        parse_image_size(text)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    """A later layer wins. A flag that is not given leaves the value of the file."""
    path = tmp_path / "run.toml"
    path.write_text(
        'dataset = "mnist"\nlatent_dim = 8\nlearning_rate = 1\nimage_size = "28x20"\nminutes = 3\n'
    )
    config = config_from(read_settings(path), {"latent_dim": 16, "seed": None, "epochs": 2})
    assert (config.dataset, config.latent_dim, config.learning_rate) == ("mnist", 16, 1.0)
    assert config.image_size == (28, 20)
    assert (config.epochs, config.minutes) == (2, None)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "dataset =", "is not valid TOML"),
        ("a.json", "{", "is not valid JSON"),
        ("a.json", "[]", "is not a JSON object"),
        ("missing.toml", None, "cannot be read: No such file"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    """The error names a settings file that cannot be read."""
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadConfig, match=name) as raised:
        read_settings(path)
    assert message in str(raised.value)


def test_json_reads_back() -> None:
    """The settings that a run saves can be read back."""
    config = Config(dataset="digits", image_size=(28, 20), minutes=1.5, likelihood="gaussian")
    assert config_from(json.loads(json.dumps(to_json_object(config)))) == config


def with_option(objective: str, name: str) -> dict[str, Any]:
    """Return settings of an objective with one option that is not at its default."""
    gaussian = {"likelihood": "gaussian"} if name == "sigma" else {}
    return {"dataset": "x", "objective": objective, **gaussian, name: OTHER[name]}


def test_every_option_of_some_objectives_is_tried() -> None:
    """The values above cover all such settings, and none of them is a default."""
    assert OTHER.keys() == USED_BY.keys()
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    assert not [name for name, value in OTHER.items() if defaults[name] == value]
    assert all(set(users) < set(OBJECTIVES) for users in USED_BY.values())


@pytest.mark.parametrize("name", USED_BY)
def test_an_option_is_refused_where_nothing_uses_it(name: str) -> None:
    """Every objective that does not use the option refuses it, and the error names those that use it."""
    for objective in OBJECTIVES:
        if objective in USED_BY[name]:
            assert getattr(config_from(with_option(objective, name)), name) == OTHER[name]
            continue
        with pytest.raises(BadConfig) as raised:
            config_from(with_option(objective, name))
        message = str(raised.value)
        assert message.startswith(f"{name}={OTHER[name]} is not used by objective={objective}")
        assert message.endswith(f": use it with {alternatives(USED_BY[name])}")


def trained_weights(settings: dict[str, Any]) -> list[torch.Tensor]:
    """Return the networks' weights after steps in every part of a run of 4 epochs."""
    tiny: dict[str, Any] = {"width": 2, "hidden": 4, "latent_dim": 3}
    if settings["objective"] in ADVERSARIAL:
        tiny["discriminator_width"] = 2
    config, _ = chosen_likelihood(config_from(tiny, settings), np.full((1, 8, 8, 1), 99, np.uint8))
    train_state = TrainState(config, shape=(8, 8, 1), device=torch.device("cpu"))
    images = torch.randint(0, 256, (4, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    for fraction in (0.0, 0.2, 0.4, 0.7, 0.9):
        beta = effective_beta(config, 4 * fraction)
        train_state.step(images.to(torch.uint8), learning_rate=1e-2, beta=beta, fraction=fraction)
    return [parameter.detach().clone() for parameter in train_state.model.parameters()]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_option_that_is_taken_changes_the_weights(objective: str) -> None:
    """Every option that an objective accepts changes the trained weights."""
    for name in USED_BY:
        # `early_stop_epochs` acts between epochs, not in a step.
        if objective not in USED_BY[name] or name == "early_stop_epochs":
            continue
        settings = with_option(objective, name)
        plain = trained_weights({key: value for key, value in settings.items() if key != name})
        changed = trained_weights(settings)
        assert any(not torch.equal(a, b) for a, b in zip(plain, changed, strict=True)), name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        *(
            (
                {"importance_samples": 5, name: OTHER[name]},
                f"{name}={OTHER[name]} cannot be combined with importance_samples=5: that bound has no such",
            )
            for name in ("beta", "kl_warmup_epochs", "free_bits", "terms")
        ),
        *(
            (
                {"terms": "distortion", name: OTHER[name]},
                f"{name}={OTHER[name]} cannot be combined with terms=distortion: it trains no rate",
            )
            for name in ("beta", "kl_warmup_epochs", "free_bits")
        ),
        (
            {"likelihood": "bernoulli", "sigma": 0.1},
            "sigma=0.1 needs likelihood=gaussian, not likelihood=bernoulli",
        ),
        ({"likelihood": "discretised-logistic", "sigma": 0.1}, "not likelihood=discretised-logistic"),
        (
            {"likelihood": "discretised-logistic", "binarize": "dynamic"},
            "binarize=dynamic needs likelihood=bernoulli, not likelihood=discretised-logistic",
        ),
        ({"sigma": 0.0, "likelihood": "gaussian"}, "sigma is 0.0: it must be from 0.0001 to 10"),
        ({"free_bits": -0.1}, "free_bits is -0.1: it must be from 0 to 100"),
        (
            {"adversarial_loss": "wasserstein"},
            "adversarial_loss is 'wasserstein': use non-saturating or minimax",
        ),
        ({"terms": "elbo"}, "terms is 'elbo': use both, distortion or rate"),
        ({"test_dataset": ""}, "test_dataset is empty: name a data set, a folder or a file"),
        ({"validation_share": 0.6}, "validation_share is 0.6: it must be from 0 to 0.5"),
        (
            {"validation_share": 0.1, "validation_dataset": "y"},
            "validation_share=0.1 and validation_dataset=y are both set: give one of them",
        ),
        (
            {"validation_share": 0.0, "early_stop_epochs": 3},
            "early_stop_epochs=3 cannot be combined with validation_share=0.0: it needs validation images",
        ),
        ({"gan_share": 1.0, "objective": "vae-disl"}, "gan_share is 1.0: it must be from 0.01 to 0.99"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, Any], message: str) -> None:
    """The error names the settings that contradict each other, and the reason."""
    with pytest.raises(BadConfig) as raised:
        config_from({"dataset": "x"}, values)
    assert message in str(raised.value)


@pytest.mark.parametrize("objective", ADVERSARIAL)
@pytest.mark.parametrize("likelihood", ["bernoulli", "discretised-logistic"])
def test_games_need_a_gaussian(objective: str, likelihood: str) -> None:
    """An objective with a discriminator has its own defaults, and accepts no other likelihood."""
    config = config_from({"dataset": "x", "objective": objective})
    assert (config.likelihood, config.learning_rate) == ("gaussian", 2e-3)
    with pytest.raises(BadConfig, match=f"needs likelihood=gaussian, not likelihood={likelihood}"):
        config_from({"dataset": "x", "objective": objective, "likelihood": likelihood})


_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=3),
)


# Other jobs on the machine are no reason to fail.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*Config.__dataclass_fields__, "x"]), _VALUES, max_size=6))
def test_any_values_give_settings_or_one_clear_error(values: dict[str, Any]) -> None:
    """Any content of a file gives a `Config` or a `BadConfig`, and no other error."""
    with contextlib.suppress(BadConfig):
        assert isinstance(config_from({"dataset": "digits"}, values), Config)
