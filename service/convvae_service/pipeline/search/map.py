"""The map of a result: places in two dimensions, colours and pictures, as a picture or a page.

Dimensions: N = rows, Z = latent dimension.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convvae_service.pipeline.errors import BadUse
from convvae_service.pipeline.result import Result
from convvae_service.pipeline.search.colours import coloured
from convvae_service.pipeline.search.map_page import map_page
from convvae_service.pipeline.search.map_picture import map_picture
from convvae_service.pipeline.search.out_files import save_picture, write_text
from convvae_service.pipeline.search.pictures import THUMBNAIL, pictures_of_rows
from convvae_service.pipeline.search.plane import on_plane
from convvae_service.pipeline.search.rows import column_values, encoder_name, ids_of, vectors_of

__all__ = ["draw_map"]

_NO_COLOURS = ("embedding", "log_variance", THUMBNAIL)
_WAYS = {"tsne": "t-SNE", "pca": "two main axes"}


def draw_map(
    result: Result,
    outs: Sequence[Path],
    *,
    method: str,
    by: str,
    max_rows: int,
    sources: Sequence[str],
    seed: int,
) -> int:
    """Write the map of a result to files: `.png` a picture, `.html` a page. Return the number of rows in it.

    Args:
        result: The result.
        outs: The files.
        method: `tsne` or `pca`.
        by: The column whose values give the colours, or "".
        max_rows: More rows than this are drawn by `seed` from all.
        sources: The sources of the pictures, if the result has no thumbnails.
        seed: Draws the rows, and seeds t-SNE.

    Raises:
        BadUse: There is no such column, or there are too few rows.
        RunFailed: A file cannot be written.
    """
    columns = [name for name in result.schema.names if name not in _NO_COLOURS]
    if by and by not in columns:
        raise BadUse(f"--by is {by!r}: the result has these columns for colours: {', '.join(columns)}")
    rows = np.sort(np.random.default_rng(seed).permutation(result.rows)[:max_rows])
    ids = ids_of(result, rows)
    with_pictures = bool(sources) or THUMBNAIL in result.schema.names
    pictures = pictures_of_rows(result, rows, ids, sources) if with_pictures else None
    places_N2 = on_plane(vectors_of(result, rows), method, seed=seed)
    values = column_values(result, by, rows) if by else None
    colouring = coloured(values)
    part = f"{len(rows):,} of " if len(rows) < result.rows else ""
    part += f"{result.rows:,} rows"
    coloured_by = f", coloured by {by}" if by else ""
    source = result.metadata.get("convvae.source", "Result")
    heading = f"{source}: {part}, {_WAYS[method]} of {encoder_name(result)}{coloured_by}"
    for out in outs:
        if out.suffix.lower() == ".html":
            labels = (
                None if values is None else ["(none)" if value is None else str(value) for value in values]
            )
            write_text(out, map_page(places_N2, ids, colouring, labels, pictures, heading=heading))
        else:
            save_picture(map_picture(places_N2, colouring, pictures, heading=heading), out)
    return len(rows)
