"""Settings: ranges, files, flags, messages."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convvae_trainer.config import Config, config_from, parse_image_size, read_settings, to_json_object
from convvae_trainer.errors import BadConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "dataset is not set: name a data set"),
        ({"dataset": ""}, "dataset is empty"),
        ({"dataset": "digits", "latent_dmi": 3}, "unknown setting 'latent_dmi': did you mean 'latent_dim'?"),
        ({"dataset": "digits", "latent_dim": 0}, "latent_dim is 0: it must be within 1 to 65536"),
        ({"dataset": "digits", "latent_dim": "32"}, "latent_dim is '32': it must be of type int"),
        ({"dataset": "digits", "latent_dim": True}, "latent_dim is True: it must be of type int"),
        ({"dataset": "digits", "seed": -1}, "seed is -1"),
        ({"dataset": "digits", "seed": 10**400}, "seed is 1000"),
        ({"dataset": "digits", "beta": 10**400}, "beta is out of range: it has 401 digits"),
        ({"dataset": "digits", "beta": float("inf")}, "beta is inf: it must be within 0 to 10000"),
        ({"dataset": "digits", "learning_rate": float("nan")}, "learning_rate is nan"),
        ({"dataset": "digits", "objective": "gan"}, "objective is 'gan': one of ae, vae, vae-disl, vae-gan"),
        (
            {"dataset": "digits", "likelihood": "poisson"},
            "likelihood is 'poisson': one of bernoulli, gaussian",
        ),
        ({"dataset": "digits", "epochs": 2, "minutes": 1.0}, "epochs and minutes are both set"),
        ({"dataset": "digits", "device": "tpu"}, "device is 'tpu': use auto, cpu, cuda or cuda:N"),
        ({"dataset": "digits", "image_size": 7}, "image_size is 7x7: each side must be 8 to 256 pixels"),
        ({"dataset": "digits", "image_size": [257, 32]}, "image_size is 257x32"),
        ({"dataset": "digits", "image_size": "x"}, "image_size is 'x': give H or HxW"),
        ({"dataset": "digits", "image_size": [1, 2, 3]}, "image_size is [1, 2, 3]"),
        (
            {"dataset": "digits", "likelihood": "gaussian", "binarize": "dynamic"},
            "binarize=dynamic needs likelihood=bernoulli",
        ),
    ],
)
def test_a_bad_setting_is_named(values: dict[str, Any], message: str) -> None:
    """Every refusal names the setting and what would be right."""
    with pytest.raises(BadConfig) as raised:
        config_from(values)
    assert message in str(raised.value)


@pytest.mark.parametrize(("text", "size"), [("64", (64, 64)), ("28x20", (28, 20)), (" 8X256 ", (8, 256))])
def test_image_sizes_are_one_side_or_two(text: str, size: tuple[int, int]) -> None:
    """`H` is a square, `HxW` height by width."""
    assert parse_image_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-8", "8x", "x8", "8x8x8", "1e2", "٨", "9" * 30])
def test_other_image_sizes_are_refused(text: str) -> None:
    """Anything else is refused in words."""
    with pytest.raises(BadConfig, match="image_size"):
        parse_image_size(text)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    """A later layer wins; a flag that is not given leaves the file's value."""
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
        ("a.toml", "dataset =", "is no TOML"),
        ("a.json", "{", "is no JSON"),
        ("a.json", "[]", "is no JSON object"),
        ("missing.toml", None, "cannot be read: No such file"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    """A settings file that cannot be read is refused with its name."""
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadConfig, match=name) as raised:
        read_settings(path)
    assert message in str(raised.value)


def test_json_reads_back() -> None:
    """What a run keeps of its settings gives the same settings."""
    config = Config(dataset="digits", image_size=(28, 20), minutes=1.5, likelihood="gaussian")
    assert config_from(json.loads(json.dumps(to_json_object(config)))) == config


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
    """Whatever a file holds, the outcome is a `Config` or a `BadConfig` that says something."""
    with contextlib.suppress(BadConfig):
        assert isinstance(config_from({"dataset": "digits"}, values), Config)
