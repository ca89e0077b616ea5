"""The rules that the settings of a run obey, each setting alone and several together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from convvae_service.engine.device_name import is_device_name
from convvae_trainer.settings.declaration import Setting, alternatives
from convvae_trainer.settings.image_size import check_image_size
from convvae_trainer.settings.layers import BadSetting, SettingValue
from convvae_trainer.settings.objectives import OBJECTIVES, settings_by_user

__all__ = ["Rules"]

# The settings of the rate, which not every bound has.
_RATE = ("beta", "kl_warmup_epochs", "free_bits")


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules, applied to the values of one run.

    Args:
        values: The value of every setting, by name.
        settings: The settings, by name.
    """

    values: Mapping[str, Any]
    settings: Mapping[str, Setting]

    def check(self) -> None:
        """Check all values.

        Raises:
            BadConfig: A value is not allowed, the objective does not use it, or it contradicts another one.
                The message names all settings that are involved.
        """
        for name in ("dataset", "test_dataset", "validation_dataset"):
            if self.values[name] == "":
                raise self._bad(name, "is empty: name a data set, a folder or a file")
        if self.values["image_size"] is not None:
            check_image_size(*self.values["image_size"])
        if not is_device_name(self.values["device"]):
            self._refuse_value("device")
        for setting in self.settings.values():
            self._check_value(setting)
        if self.values["epochs"] is not None and self.values["minutes"] is not None:
            text = " are both set: give one of them"
            raise BadSetting(self._value("epochs"), " and ", self._value("minutes"), text)
        self._check_validation()
        self._check_objective()
        self._check_likelihood()
        self._check_bound()

    def _check_value(self, setting: Setting) -> None:
        value = self.values[setting.name]
        if setting.choices and value not in setting.choices:
            self._refuse_value(setting.name)
        if setting.declaration.bounds is not None and value is not None:
            low, high = setting.declaration.bounds
            if not low <= value <= high:
                raise self._bad(setting.name, f"is {value}: it must be from {setting.allowed}")

    def _check_validation(self) -> None:
        if self.values["validation_dataset"] is not None:
            if self.values["validation_share"]:
                share, own = self._value("validation_share"), self._value("validation_dataset")
                raise BadSetting(share, " and ", own, " are both set: give one of them")
        elif self.values["validation_share"] == 0 and self.values["early_stop_epochs"] is not None:
            patience, share = self._value("early_stop_epochs"), self._value("validation_share")
            raise BadSetting(patience, " cannot be combined with ", share, ": it needs validation images")

    def _check_objective(self) -> None:
        for name, users in settings_by_user().items():
            if self.values["objective"] not in users and self._is_set(name):
                remedy = f": use it with {alternatives(users)}"
                raise BadSetting(self._value(name), " is not used by ", self._value("objective"), remedy)
        for name, value in OBJECTIVES[self.values["objective"]].needs.items():
            self._check_need("objective", name, value)

    def _check_likelihood(self) -> None:
        if self.values["binarize"] == "dynamic":
            self._check_need("binarize", "likelihood", "bernoulli")
        if self.values["sigma"] is not None:
            self._check_need("sigma", "likelihood", "gaussian")

    def _check_bound(self) -> None:
        if self.values["importance_samples"] > 1:
            self._check_unset((*_RATE, "terms"), "importance_samples", "that bound has no such part")
        if self.values["terms"] == "distortion":
            self._check_unset(_RATE, "terms", "it trains no rate")

    def _check_need(self, name: str, other: str, value: Any) -> None:
        # `auto` becomes the value that is needed.
        if self.values[other] not in (value, "auto"):
            raise BadSetting(self._value(name), f" needs {other}={value}, not ", self._value(other))

    def _check_unset(self, names: tuple[str, ...], other: str, reason: str) -> None:
        for name in names:
            if self._is_set(name):
                raise BadSetting(
                    self._value(name), " cannot be combined with ", self._value(other), f": {reason}"
                )

    def _is_set(self, name: str) -> bool:
        return bool(self.values[name] != self.settings[name].default)

    def _value(self, name: str) -> SettingValue:
        return SettingValue(name, self.values[name])

    def _bad(self, name: str, text: str) -> BadSetting:
        return BadSetting(self._value(name), f" {text}")

    def _refuse_value(self, name: str) -> None:
        raise self._bad(name, f"is {self.values[name]!r}: use {self.settings[name].allowed}")
