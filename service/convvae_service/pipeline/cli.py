"""The command line `convvae-embed`. pyarrow and ONNX Runtime load inside the command, so --help is fast."""

import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from convvae.connection.security import Security, security_of
from convvae.connection.shared_options import with_options_of
from convvae.program.app import Program
from convvae.program.streams import redirect_to_nowhere
from convvae_service.pipeline.encoder_flags import EncoderFlags, check_range
from convvae_service.pipeline.errors import BadModel, BadUse, RunFailed, what_is_kept
from convvae_service.pipeline.search.cli import draw, duplicates, neighbors
from convvae_service.pipeline.signals import interrupt_on_signals

__all__ = ["app"]

MAX_BATCH_ROWS = 1 << 16
MAX_PIXELS = 1 << 40
MAX_DIGITS = 18  # of a number of images
# The default of `convvae_service.images`, which is not imported here because it loads Pillow.
DEFAULT_MAX_PIXELS = 100_000_000
MAX_LISTED = 20  # failed images that are printed
MAX_PART_ROWS = 1 << 30
# 8 MiB of vectors of 32 values. A killed run loses the work of one part.
DEFAULT_PART_ROWS = 1 << 16
OWN_COLUMNS = ("id", "embedding", "log_variance", "elbo", "distortion", "rate", "thumbnail")

app = Program(
    "convvae-embed",
    help="""Embed images in bulk, and search and draw what was embedded.

    Example: convvae-embed run pictures/ z.parquet --bundle models/mnist
    """,
)


@app.command()
@with_options_of(security_of)
def run(
    security: Security,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Read folders of images, tar archives, Parquet, .npy, .npz or idx files. Patterns and"
            " addresses such as 's3://bucket/shard-{000..099}.tar' are allowed. - reads a list of paths from"
            " standard input.",
        ),
    ],
    sink: Annotated[
        Path,
        typer.Argument(
            metavar="SINK", help="Write a folder of Parquet parts, or one file that ends in .parquet or .npy."
        ),
    ],
    target: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Encode through this service.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL[@VERSION]", help="Use this model of the service.", show_default="its only model"
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="ROOT/MODEL[@VERSION]", help="Encode in this process, with a published model."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE", help="With --bundle, compute on auto, cpu, cuda or cuda:N.", show_default="auto"
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="PRECISION", help="With --bundle, compute in fp32, fp16 or int8.", show_default="fp32"
        ),
    ] = None,
    batch_rows: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Read and encode this number of images together.",
            show_default="128 to 512 by size; 1024 on a GPU; 256 with --target",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Decode files in this number of processes, with --engine ray of threads in each worker. On a"
            " CPU of this process, as many threads encode.",
            show_default="all CPUs; of a worker 1, or up to 8 beside a GPU",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(metavar="local|ray", help="Encode in this process, or on Ray with workers of --bundle."),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="With --engine ray, use the cluster at auto or HOST:PORT.",
            show_default="RAY_ADDRESS, or a cluster on this machine for this run",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="With --engine ray, encode in this number of processes.",
            show_default="one a GPU, or one a CPU",
        ),
    ] = None,
    in_flight: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="With --target, send this number of calls at a time.", show_default="4"
        ),
    ] = None,
    log_variance: Annotated[
        bool, typer.Option("--log-variance", metavar="", help="Add the column log_variance.")
    ] = False,
    score: Annotated[
        bool, typer.Option("--score", metavar="", help="Add the columns elbo, distortion and rate, in nats.")
    ] = False,
    thumbnail: Annotated[
        bool,
        typer.Option(
            "--thumbnail", metavar="", help="Add the column thumbnail, which has the model's input as PNG."
        ),
    ] = False,
    float16: Annotated[
        bool, typer.Option("--float16", metavar="", help="Store vectors as float16 instead of float32.")
    ] = False,
    keep: Annotated[
        str,
        typer.Option(
            metavar="COLUMN,…",
            help="Carry these columns along: columns of Parquet files, files beside the image in tar archives"
            " (cls, json, txt), or label of folders and .npz files.",
        ),
    ] = "",
    where: Annotated[
        str,
        typer.Option(
            metavar="CONDITION",
            help="Read only these rows of Parquet files, such as \"label == 3 and split == 'a'\".",
        ),
    ] = "",
    image_column: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            help="Read images or paths from this column of Parquet files.",
            show_default="found by type",
        ),
    ] = "",
    id_column: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            help="Read ids from this column of Parquet files.",
            show_default="file name and row number",
        ),
    ] = "",
    on_error: Annotated[
        str,
        typer.Option(
            metavar="stop|skip|N",
            help="For a file that is not an image, stop, or skip it and write it to the table of failed"
            " images, or stop after more than N of them.",
        ),
    ] = "stop",
    part_rows: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Write this number of images to each part of a folder.",
            show_default=str(DEFAULT_PART_ROWS),
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", metavar="", help="Continue the folder SINK after its last part.")
    ] = False,
    max_pixels: Annotated[
        int, typer.Option(metavar="N", help="Read image files up to this width x height.")
    ] = DEFAULT_MAX_PIXELS,
    overwrite: Annotated[bool, typer.Option("--force", metavar="", help="Replace files that exist.")] = False,
    json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print the result as one JSON object.")
    ] = False,
) -> None:
    """Encode every image of SOURCE and write the posterior means to SINK.

    A file appears when the run is complete. A folder is written in parts, and --resume continues it.

    Example: convvae-embed run pictures/ z.parquet --bundle models/mnist
    """
    flags = EncoderFlags(
        target=target,
        model=model,
        bundle=bundle,
        device=device,
        precision=precision,
        threads=threads,
        in_flight=in_flight,
        engine=engine,
        ray_address=ray_address,
        workers=workers,
        security=security,
    )
    flags.check()
    max_failed = _max_failed(on_error)
    check_range("--batch-rows", batch_rows, MAX_BATCH_ROWS)
    check_range("--max-pixels", max_pixels, MAX_PIXELS)
    check_range("--part-rows", part_rows, MAX_PART_ROWS)
    kept = _kept_columns(keep)

    from convvae_service.images import SourceOptions, open_sources
    from convvae_service.pipeline.progress import progress_bar
    from convvae_service.pipeline.run import RunSettings
    from convvae_service.pipeline.sink import Columns, Provenance
    from convvae_service.pipeline.sink_kinds import check_is_apart, check_sink, job_of, open_output
    from convvae_service.pipeline.summary import summary_json, summary_line

    check_sink(sink, overwrite=overwrite, resume=resume)
    options = SourceOptions(
        max_pixels=max_pixels, keep=kept, where=where, image_column=image_column, id_column=id_column
    )
    images = open_sources(sources, options)
    check_is_apart(sink, images)
    with closing(flags.open_engine()) as opened:
        info = opened.info
        images.check(info.input)
        if (log_variance or score) and not info.has_log_variance:
            flag = "--log-variance" if log_variance else "--score"
            raise BadModel(f"model {info.input.model!r} has no log-variance: omit {flag}")
        columns = Columns(
            log_variance=log_variance,
            score=score,
            thumbnail=thumbnail,
            float16=float16,
            kept=images.columns,
        )
        settings = RunSettings(
            batch_rows=batch_rows or opened.batch_rows, columns=columns, max_failed=max_failed
        )
        provenance = Provenance(encoder=info, source=images.name, columns=columns)
        rows = part_rows or DEFAULT_PART_ROWS
        job = job_of(images, provenance, options, part_rows=rows)
        with interrupt_on_signals():
            output = open_output(sink, provenance, job, part_rows=rows, overwrite=overwrite, resume=resume)
            with what_is_kept(output), progress_bar(Console(stderr=True)) as progress:
                summary = opened.embed(images, output, settings, progress=progress)
            opened.close()
            lines = [f"skipped {row.id}: {row.reason}" for row in summary.first_failed[:MAX_LISTED]]
            if (others := summary.failed - len(lines)) > 0:
                lines.append(f"skipped {others} more: {output.failed_table} lists all")
            if summary.left_out.counts:
                lines.append(str(summary.left_out))
            if summary.empty_columns:
                lines.append(f"without a value in all rows: {', '.join(summary.empty_columns)}")
            if output.repeated.count:
                lines.append(str(output.repeated))
            _print(
                lines, summary_json(summary, info, sink) if json else summary_line(summary, info, sink), sink
            )


def _max_failed(on_error: str) -> int | None:
    """Return the number of images that may fail, or None for any."""
    if on_error == "skip":
        return None
    if on_error == "stop":
        return 0
    if not on_error.isdecimal() or len(on_error) > MAX_DIGITS:
        raise BadUse(f"--on-error is {on_error[:20]!r}: it must be stop, skip or a number")
    return int(on_error)


def _kept_columns(keep: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in keep.split(",") if name.strip())
    for name in names:
        if name in OWN_COLUMNS or names.count(name) > 1:
            reason = "the result has a column of this name" if name in OWN_COLUMNS else "it is named twice"
            raise BadUse(f"--keep cannot have {name!r}: {reason}")
    return names


def _print(lines: list[str], summary: str, sink: Path) -> None:
    """Print lines to stderr, and then the summary to stdout."""
    with suppress(OSError):
        for line in lines:
            typer.echo(line, err=True)
    try:
        typer.echo(summary)
    except OSError as error:
        redirect_to_nowhere(sys.stdout)
        raise RunFailed(f"{sink} is complete, but stdout cannot be written: {error.strerror}") from None


# After `run`, as in the help.
app.command()(neighbors)
app.command()(duplicates)
app.command("map")(draw)
