"""The declarations of the settings, from which flags, checks and documentation are made."""

import dataclasses

import pytest

from convvae_trainer.errors import BadConfig
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import DEFAULT_EPOCHS, SETTINGS, Config
from convvae_trainer.settings.declaration import Panel, alternatives
from convvae_trainer.settings.objectives import OBJECTIVES


def test_every_field_is_declared() -> None:
    """The settings are the fields, in their order, each with a panel and whole sentences."""
    assert list(SETTINGS) == [field.name for field in dataclasses.fields(Config)]
    for setting in SETTINGS.values():
        assert setting.declaration.help[0].isupper(), setting.name
        assert setting.declaration.help.endswith("."), setting.name
    assert {setting.declaration.panel for setting in SETTINGS.values()} == set(Panel)


def test_the_facts_fit_the_types() -> None:
    """Each number has bounds, with its default between them. A default of None has words."""
    for setting in SETTINGS.values():
        bounds = setting.declaration.bounds
        assert (bounds is not None) == (setting.kind in (int, float)), setting.name
        if bounds is not None and setting.default is not None:
            assert bounds[0] <= setting.default <= bounds[1], setting.name
        if setting.kind is int:
            assert bounds is not None
            assert all(isinstance(bound, int) for bound in bounds), setting.name
        if setting.default is None:
            assert setting.declaration.default_text, setting.name
        if setting.choices:
            assert setting.default in setting.choices, setting.name
    assert SETTINGS["epochs"].default_text == str(DEFAULT_EPOCHS)
    assert SETTINGS["minutes"].default is None


@pytest.mark.parametrize("name", [name for name, setting in SETTINGS.items() if setting.declaration.bounds])
def test_both_bounds_are_allowed_and_nothing_beyond(name: str) -> None:
    """The checked bounds are the bounds in the help."""
    setting = SETTINGS[name]
    assert setting.declaration.bounds is not None
    low, high = setting.declaration.bounds
    below = {"dataset": "x"}
    if setting.objectives:
        below["objective"] = setting.objectives[0]
    if name == "sigma":
        below["likelihood"] = "gaussian"
    for value in (low, high):
        assert getattr(config_from(below, {name: value}), name) == value
    for value in (low - 1, high + 1):
        with pytest.raises(BadConfig, match=f"it must be from {setting.allowed}"):
            config_from(below, {name: value})


def test_the_table_of_objectives_names_settings() -> None:
    """Objectives name existing settings. The help shows their defaults after the usual one."""
    for row in OBJECTIVES.values():
        assert {*row.settings, *row.defaults, *row.needs} <= SETTINGS.keys()
    assert SETTINGS["likelihood"].default_text == "auto; gaussian with vae-disl or vae-gan"
    assert set(SETTINGS["objective"].choices) == set(OBJECTIVES)


def test_an_objective_that_is_added_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row in the table is enough for the settings: its name, its settings and its defaults."""
    row = dataclasses.replace(OBJECTIVES["vae"], settings=("free_bits",), defaults={"latent_dim": 7})
    monkeypatch.setitem(OBJECTIVES, "new", row)
    config = config_from({"dataset": "x", "objective": "new", "free_bits": 0.5})
    assert (config.objective, config.latent_dim) == ("new", 7)
    assert "new" in SETTINGS["objective"].allowed
    assert "new" in SETTINGS["free_bits"].objectives
    assert SETTINGS["latent_dim"].default_text == "32; 7 with new"
    with pytest.raises(BadConfig, match="terms=rate is not used by objective=new"):
        config_from({"dataset": "x", "objective": "new", "terms": "rate"})


@pytest.mark.parametrize(
    ("words", "text"), [(["a"], "a"), (["a", "b"], "a or b"), (["a", "b", "c"], "a, b or c")]
)
def test_alternatives_read_as_a_sentence(words: list[str], text: str) -> None:
    """Commas stand between the first words, and `or` before the last."""
    assert alternatives(words) == text
