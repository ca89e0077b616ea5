"""The map of a result as one HTML page that needs no network.

Dimensions: N = rows.
"""

import base64
import html
import io
import json
import math
import re
from collections.abc import Sequence
from importlib import resources

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convvae_service.images import printable
from convvae_service.pipeline.search.colours import Colouring

__all__ = ["map_page"]

_TEMPLATE = "map_page.html"
_THUMBNAIL = 48
# Browsers show no larger picture for sure.
_MAX_SPRITE = 8192


def map_page(
    places_N2: NDArray[np.float64],
    ids: Sequence[str],
    colouring: Colouring,
    labels: Sequence[str] | None,
    pictures: Sequence[Image.Image] | None,
    *,
    heading: str,
) -> str:
    """Return the page: points that can be moved, enlarged and pointed at, with their pictures and ids.

    Args:
        places_N2: Places within 0 to 1, (N, 2).
        ids: The ids of the rows.
        colouring: Colours of the rows, and the legend.
        labels: A text for each row, beside its id, or None.
        pictures: The picture of each row, or None.
        heading: The line above the map.
    """
    columns = max(1, math.isqrt(max(0, len(ids) - 1)) + 1)
    side = min(_THUMBNAIL, _MAX_SPRITE // columns)
    data = {
        "places": np.round(places_N2, 5).tolist(),
        "ids": list(ids),
        "labels": None if labels is None else list(labels),
        "colours": list(colouring.colours),
        "legend": [list(each) for each in colouring.legend],
        "isScale": colouring.is_scale,
        "side": side,
        "columns": columns,
        "sprite": "" if pictures is None else _sprite(pictures, columns, side),
    }
    # An id may have the end of a script element in it.
    script = (
        json.dumps(data).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    )
    template = resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8")
    parts = {"heading": html.escape(printable(heading)), "data": script}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def _sprite(pictures: Sequence[Image.Image], columns: int, side: int) -> str:
    """Return all pictures as one, as a data address."""
    rows = math.ceil(len(pictures) / columns)
    sprite = Image.new("RGB", (columns * side, rows * side), "white")
    for number, picture in enumerate(pictures):
        place = (number % columns * side, number // columns * side)
        sprite.paste(picture.resize((side, side), Image.Resampling.BICUBIC), place)
    stream = io.BytesIO()
    sprite.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
