"""Image sizes: their limits, and how they are written."""

import re

from convvae_trainer.settings.layers import BadSetting, SettingValue

__all__ = ["MAX_SIDE", "MIN_SIDE", "check_image_size", "parse_image_size"]

MIN_SIDE = 8
MAX_SIDE = 256


def check_image_size(height: int, width: int, *, name: str = "image_size") -> None:
    """Check the sides of an image; the message calls the setting `name`.

    Raises:
        BadConfig: A side is not within 8 to 256 pixels.
    """
    if not (MIN_SIDE <= height <= MAX_SIDE and MIN_SIDE <= width <= MAX_SIDE):
        text = f" is {height}x{width}: each side must be from {MIN_SIDE} to {MAX_SIDE} pixels"
        raise BadSetting(SettingValue(name, (height, width)), text)


def parse_image_size(text: str, *, name: str = "image_size") -> tuple[int, int]:
    """Return (height, width) of `H` or `HxW`; messages call the setting `name`.

    Raises:
        BadConfig: The text has another form, or a side is not within 8 to 256 pixels.
    """
    match = re.fullmatch(r"(\d{1,9})(?:[xX](\d{1,9}))?", text.strip(), flags=re.ASCII)
    if not match:
        raise BadSetting(
            SettingValue(name, text), f" is {text!r}: give H or HxW in pixels, such as 64 or 28x20"
        )
    height, width = int(match[1]), int(match[2] or match[1])
    check_image_size(height, width, name=name)
    return height, width
