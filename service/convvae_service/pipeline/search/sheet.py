"""A sheet of pictures: rows of tiles, each with a line of text below it."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from convvae_service.images import printable

__all__ = ["Tile", "picture_sheet"]

TILE = 112
GAP = 8
TEXT = 15
_BACKGROUND, _INK, _PALE = "white", "#222222", "#777777"


@dataclass(frozen=True, slots=True)
class Tile:
    """A picture with a title and a second line below it."""

    picture: Image.Image
    title: str
    note: str = ""


def picture_sheet(rows: Sequence[Sequence[Sequence[Tile]]], *, heading: str) -> Image.Image:
    """Return a sheet with one row of tiles for each of `rows`. The groups of tiles in a row stand apart."""
    font = ImageFont.load_default(size=12)
    heading = printable(heading)
    widths = [sum(len(group) * (TILE + GAP) + 2 * GAP for group in groups) for groups in rows]
    width = 2 * GAP + max([*widths, round(font.getlength(heading))])
    row_height = TILE + 2 * TEXT + GAP
    sheet = Image.new("RGB", (width, 2 * GAP + TEXT + len(rows) * row_height), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), heading, fill=_INK, font=font)
    for number, groups in enumerate(rows):
        left, top = GAP, 2 * GAP + TEXT + number * row_height
        for group in groups:
            for tile in group:
                _paste(sheet, tile.picture, left, top)
                draw.text((left, top + TILE + 1), _shortened(tile.title, font), fill=_INK, font=font)
                draw.text((left, top + TILE + 1 + TEXT), _shortened(tile.note, font), fill=_PALE, font=font)
                left += TILE + GAP
            left += 2 * GAP
    return sheet


def _paste(sheet: Image.Image, picture: Image.Image, left: int, top: int) -> None:
    scale = TILE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # Small images are enlarged by whole pixels, so that one sees what the model saw.
    way = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    fitted = picture.resize(size, way)
    sheet.paste(fitted, (left + (TILE - fitted.width) // 2, top + (TILE - fitted.height) // 2))


def _shortened(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """Return a text on one line, or the end of a long one, as wide as a tile: paths differ there."""
    text = printable(text)
    shown = text
    while shown and font.getlength(shown) > TILE:
        text = text[1:]
        shown = "…" + text
    return shown
