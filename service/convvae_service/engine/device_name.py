"""The names of devices in settings: `auto`, `cpu`, `cuda` and `cuda:N`."""

import re

__all__ = ["is_device_name"]

_DEVICE_NAME = re.compile(r"auto|cpu|cuda(:\d+)?", re.ASCII)


def is_device_name(name: str) -> bool:
    """Return whether `name` has the form of a device's name. The device itself may be absent."""
    return _DEVICE_NAME.fullmatch(name) is not None
