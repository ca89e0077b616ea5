"""The commands `neighbors`, `duplicates` and `map` of `convvae-embed`. Libraries load inside them."""

import json as json_format
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from convvae.connection.security import Security, security_of
from convvae.connection.shared_options import with_options_of
from convvae_service.pipeline.encoder_flags import EncoderFlags, check_range
from convvae_service.pipeline.errors import BadUse
from convvae_service.printable import printable

__all__ = ["draw", "duplicates", "neighbors"]

MAX_COUNT = 1000
MAX_PAIRS = 100_000_000
MAX_MAP_ROWS = 100_000
_SHOWN_PAIRS = 10

Result = Annotated[
    Path, typer.Argument(metavar="RESULT", help="Read this file or folder of convvae-embed run.")
]
Source = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SOURCE",
        help="Take pictures from these images, which the result is of.",
        show_default="its own thumbnails",
    ),
]
Overwrite = Annotated[bool, typer.Option("--force", metavar="", help="Replace files that exist.")]
Json = Annotated[bool, typer.Option("--json", metavar="", help="Print the result as one JSON object.")]


@with_options_of(security_of)
def neighbors(
    security: Security,
    result: Result,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="Search for these: image files with --bundle or --target, else ids of rows.",
        ),
    ],
    count: Annotated[
        int, typer.Option(metavar="N", help="Find this number of neighbours of each image.")
    ] = 15,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="ROOT/MODEL[@VERSION]",
            help="Encode the image files with this published model.",
            show_default="the result's version",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Encode the image files through this service.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL[@VERSION]", help="Use this model of the service.", show_default="the result's"
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="PRECISION",
            help="With --bundle, compute in fp32, fp16 or int8.",
            show_default="the result's",
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Write the pictures of all neighbours to this file."),
    ] = None,
    source: Source = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Find the images of RESULT that are most like each IMAGE, exactly, by Euclidean distance.

    Example: convvae-embed neighbors photos.parquet cats/01.jpg --count 5
    """
    check_range("--count", count, MAX_COUNT)
    flags = EncoderFlags(
        target=target,
        model=model,
        bundle=bundle,
        device=None,
        precision=precision,
        threads=None,
        in_flight=None,
        security=security,
    )
    are_files = bundle is not None or target is not None
    if are_files:
        flags.check()
    elif model is not None or precision is not None:
        raise BadUse("--model needs --target, and --precision needs --bundle")

    from convvae_service.pipeline.result import open_result
    from convvae_service.pipeline.search.neighbors import find_neighbors, neighbors_sheet
    from convvae_service.pipeline.search.out_files import check_out, save_picture
    from convvae_service.pipeline.search.pictures import check_pictures

    _check_source(source, sheet)
    if sheet is not None:
        check_out(sheet, [".png"], result=result, overwrite=overwrite)
    opened = open_result(result)
    if sheet is not None:
        check_pictures(opened, source or [])
    if are_files:
        with closing(flags.like(opened.metadata).open()) as encoder:
            found = find_neighbors(opened, images, count, encoder)
    else:
        found = find_neighbors(opened, images, count, None)
    if sheet is not None:
        save_picture(neighbors_sheet(opened, found, source or []), sheet)
    tables = [
        {
            "image": query,
            "neighbors": [
                {"id": text, "row": int(row), "distance": _six_digits(distance)}
                for text, row, distance in zip(ids, rows, distances, strict=True)
            ],
        }
        for query, ids, rows, distances in zip(
            found.queries, found.ids, found.found.rows, found.found.distances, strict=True
        )
    ]
    if json:
        return typer.echo(json_format.dumps({"images": tables}, indent=2))
    _print_neighbors(tables)
    return None


def duplicates(
    result: Result,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="D", help="Find pairs up to this distance.", show_default="suggested"),
    ] = None,
    max_ratio: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            help="Find pairs up to this ratio of their distance to that of their tenth neighbours.",
            show_default="0.5, and no limit with --threshold",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.parquet", help="Write all pairs to this file, the nearest first."),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Write the pictures of the 30 nearest pairs to this file."),
    ] = None,
    source: Source = None,
    max_pairs: Annotated[
        int, typer.Option(metavar="N", help="Refuse to find more pairs than this.")
    ] = 1_000_000,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Find pairs of images in RESULT that are nearly equal.

    Without --threshold, a distance is suggested that is far below the usual distance of an image to its
    nearest one, and pairs of plain images are left out that have many others almost as near.

    Example: convvae-embed duplicates photos.parquet --out pairs.parquet
    """
    check_range("--max-pairs", max_pairs, MAX_PAIRS)
    if threshold is not None and not 0 <= threshold < float("inf"):
        raise BadUse(f"--threshold is {threshold}: it must be 0 or more")
    if max_ratio is not None and not max_ratio >= 0:
        raise BadUse(f"--max-ratio is {max_ratio}: it must be 0 or more")

    from convvae_service.pipeline.result import open_result
    from convvae_service.pipeline.search.duplicates import duplicates_sheet, find_duplicates, write_pairs
    from convvae_service.pipeline.search.out_files import check_out, save_picture
    from convvae_service.pipeline.search.pictures import check_pictures
    from convvae_service.pipeline.search.rows import ids_of

    _check_source(source, sheet)
    for path, suffix in ((out, ".parquet"), (sheet, ".png")):
        if path is not None:
            check_out(path, [suffix], result=result, overwrite=overwrite)
    opened = open_result(result)
    if sheet is not None:
        check_pictures(opened, source or [])
    found = find_duplicates(opened, threshold, max_ratio, max_pairs=max_pairs)
    pairs = found.pairs
    if out is not None:
        write_pairs(opened, found, out)
    if sheet is not None:
        save_picture(duplicates_sheet(opened, pairs, source or []), sheet)
    shown = slice(_SHOWN_PAIRS)
    first, second = ids_of(opened, pairs.first[shown]), ids_of(opened, pairs.second[shown])
    figures = zip(pairs.distances[shown].tolist(), found.ratios[shown].tolist(), strict=True)
    nearest: list[dict[str, Any]] = [
        {"id": a, "other_id": b, "distance": _six_digits(distance), "ratio": _six_digits(ratio)}
        for a, b, (distance, ratio) in zip(first, second, figures, strict=True)
    ]
    has_limit = found.max_ratio < float("inf")
    summary: dict[str, Any] = {
        "rows": opened.rows,
        "pairs": len(pairs.first),
        "threshold": found.threshold,
        "threshold_is_suggested": found.is_suggested,
        "max_ratio": found.max_ratio if has_limit else None,
        "nearest": nearest,
    }
    if json:
        return typer.echo(json_format.dumps(summary, indent=2))
    for pair in nearest:
        typer.echo(f"{pair['distance']:<11.6g} {printable(pair['id'])}  {printable(pair['other_id'])}")
    if len(pairs.first) > len(nearest):
        where = f"all are in {printable(str(out))}" if out is not None else "--out FILE.parquet writes all"
        typer.echo(f"... and {len(pairs.first) - len(nearest):,} more: {where}")
    limits = f"at most {found.threshold:.6g} apart" + (" (suggested)" if found.is_suggested else "")
    if has_limit:
        limits += f", and at most {found.max_ratio:g} times as far as their tenth neighbours"
    typer.echo(f"{_counted(len(pairs.first), 'pair')} of {_counted(opened.rows, 'row')}: {limits}")
    return None


def draw(
    result: Result,
    out: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            help="Write a picture (x.png), or a page to look around in (x.html). This may be repeated.",
        ),
    ],
    by: Annotated[
        str, typer.Option(metavar="COLUMN", help="Colour by a column that run --keep has carried along.")
    ] = "",
    method: Annotated[
        str,
        typer.Option(
            metavar="tsne|pca", help="Keep neighbourhoods (tsne), or the directions of most variance (pca)."
        ),
    ] = "tsne",
    max_rows: Annotated[
        int,
        typer.Option(
            metavar="N", help="Draw at most this number of rows. Of more rows, a random part is drawn."
        ),
    ] = 3000,
    source: Source = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed the choice of rows, and t-SNE.")] = 0,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Draw RESULT in two dimensions, with thumbnails where there is room.

    Example: convvae-embed map photos.parquet --out map.html --by label
    """
    check_range("--max-rows", max_rows, MAX_MAP_ROWS)
    if not 0 <= seed < 2**32:
        raise BadUse(f"--seed is {seed}: it must be 0 to {2**32 - 1}")

    from convvae_service.pipeline.result import open_result
    from convvae_service.pipeline.search.map import draw_map
    from convvae_service.pipeline.search.out_files import check_out
    from convvae_service.pipeline.search.plane import METHODS

    if method not in METHODS:
        raise BadUse(f"--method is {method!r}: it must be {' or '.join(METHODS)}")
    for path in out:
        check_out(path, [".png", ".html"], result=result, overwrite=overwrite)
    rows = draw_map(
        open_result(result), out, method=method, by=by, max_rows=max_rows, sources=source or [], seed=seed
    )
    if json:
        typer.echo(json_format.dumps({"rows": rows, "out": [str(path) for path in out]}, indent=2))
    else:
        typer.echo(f"{_counted(rows, 'row')} in {', '.join(printable(str(path)) for path in out)}")


def _print_neighbors(tables: list[dict[str, Any]]) -> None:
    for number, table in enumerate(tables):
        if number:
            typer.echo("")
        typer.echo(printable(table["image"]))
        for rank, each in enumerate(table["neighbors"], start=1):
            typer.echo(f"{rank:4}  {each['distance']:<11.6g} {printable(each['id'])}")


def _check_source(source: list[str] | None, sheet: Path | None) -> None:
    if source and sheet is None:
        raise BadUse("--source needs --sheet: it has the pictures of the sheet")


def _six_digits(value: float) -> float:
    """Return a value with six significant digits: how small distances are depends on the model."""
    return float(f"{value:.6g}")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"
