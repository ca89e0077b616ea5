"""The flags of `convvae-train fit`, which are made from the settings."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from convvae_trainer.cli.fit import fit
from convvae_trainer.commands import fit as commands
from convvae_trainer.errors import BadConfig
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import SETTINGS, Config
from convvae_trainer.settings.declaration import Setting
from convvae_trainer.settings.objectives import OBJECTIVES
from support.commands import run_train

ONLY_IN_FILES = {"warmup_steps", "max_gradient_norm"}
FLAGS = {name: setting for name, setting in SETTINGS.items() if setting.declaration.is_flag}
# Settings that another one must go with.
NEEDS = {"sigma": ["--likelihood", "gaussian"]}


def test_every_setting_is_a_flag_or_marked_as_only_in_files() -> None:
    """The command takes each setting that is declared as a flag, once."""
    assert SETTINGS.keys() - FLAGS.keys() == ONLY_IN_FILES
    parameters = list(inspect.signature(fit).parameters)
    assert len(parameters) == len(set(parameters))
    assert [name for name in parameters if name in SETTINGS] == list(FLAGS)
    assert "settings" not in parameters


@pytest.mark.parametrize("columns", [80, 120])
def test_no_flag_is_cut_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """Each flag is whole on a narrow screen too, and the help shows no Python type for it."""
    text = help_text(capsys, monkeypatch, columns=columns)
    assert "…" not in text
    for setting in FLAGS.values():
        assert re.search(rf"{setting.flag}[\s,]", text), setting.flag
        if setting.kind is bool:
            assert setting.flag.replace("--", "--no-", 1) in text
    for kind in ("<str>", "<int>", "<float>", "<tuple", "None"):
        assert kind not in text


def test_help_has_sentences_values_and_defaults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each setting stands in the section of its declaration, with all that the declaration says."""
    text = help_text(capsys, monkeypatch, columns=80)
    sections = dict(re.findall(r"^([A-Z][\w ]+):\n((?:  .*\n)+)", text, re.MULTILINE))
    for setting in FLAGS.values():
        entries = re.split(r"\n  (?=-)", "\n" + sections[setting.declaration.panel])
        (entry,) = (entry for entry in entries if re.match(rf"{setting.flag}[ ,]", entry))
        line = " ".join(entry.split())
        assert setting.declaration.help in line
        if setting.kind is not bool:
            assert setting.allowed in line
        for objective in setting.objectives:
            assert objective in line
        if setting.default_text:
            default = {"true": "yes", "false": "no"}.get(setting.default_text, setting.default_text)
            assert f"default: {default})" in line
    for name, row in OBJECTIVES.items():
        assert f"{name}: {row.help}" in " ".join(text.split())


def help_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, columns: int) -> str:
    """Return the help of `fit` on a screen of this width."""
    monkeypatch.setenv("COLUMNS", str(columns))
    assert run_train(monkeypatch, "fit", "--help") == 0
    return capsys.readouterr().out


def other_value(setting: Setting) -> Any:
    """Return an allowed value that is not the default."""
    if setting.kind is bool:
        return not setting.default
    if setting.choices:
        return next(each for each in setting.choices if each != setting.default)
    if setting.declaration.bounds is not None:
        low, high = setting.declaration.bounds
        return low if low != setting.default else high
    others = {"data_root": "sets", "image_size": (8, 9), "device": "cuda:3"}
    return others.get(setting.name, "digits")


@pytest.mark.parametrize("name", FLAGS)
def test_every_flag_reaches_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    """The run gets the value of the flag, and the defaults of all other settings."""
    seen: list[Config] = []

    def refuse(config: Config, *_: object, **__: object) -> None:
        seen.append(config)
        raise BadConfig("seen")

    monkeypatch.setattr(commands, "run_fit", refuse)
    setting = SETTINGS[name]
    value = other_value(setting)
    typed = [setting.flag if value else setting.flag.replace("--", "--no-", 1)]
    if setting.kind is not bool:
        typed = [setting.flag, "x".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    below: dict[str, Any] = {"dataset": "digits"}
    words = [] if name == "dataset" else ["--dataset", "digits"]
    if setting.objectives and name != "objective":
        below["objective"] = setting.objectives[-1]
        words += ["--objective", setting.objectives[-1]]
    if name in NEEDS:
        below["likelihood"] = NEEDS[name][1]
        words += NEEDS[name]
    assert run_train(monkeypatch, "fit", *words, *typed, "--run-dir", str(tmp_path / "run")) == 2
    assert capsys.readouterr().err == "error: seen\n"
    assert seen == [config_from(below, {name: value})]
    assert getattr(seen[0], name) == value
