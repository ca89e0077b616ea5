"""The command line `convvae-embed`. pyarrow and ONNX Runtime load inside the command, so --help is fast."""

import os
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console

from convvae_service.engine.device_name import is_device_name
from convvae_service.pipeline.errors import BadModel, BadUse, RunFailed
from convvae_service.pipeline.signals import interrupt_on_signals

if TYPE_CHECKING:
    from convvae_service.bundle import Precision
    from convvae_service.pipeline.encoder import ImageEncoder

__all__ = ["app"]

MAX_BATCH_ROWS = 1 << 16
MAX_THREADS = 1024
MAX_PIXELS = 1 << 40
# The default of `convvae_service.images`, which is not imported here because it loads Pillow.
DEFAULT_MAX_PIXELS = 100_000_000
MAX_LISTED = 20  # skipped rows that are printed; --json lists all

app = typer.Typer(
    name="convvae-embed",
    help="Embed images in bulk.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _main() -> None:
    """Embed images in bulk."""


@app.command()
def run(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="A folder of images, an .npy or .npz array, or an idx file."),
    ],
    sink: Annotated[
        Path, typer.Argument(metavar="SINK", help="Parquet file to write: columns id and embedding.")
    ],
    target: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Encode through a service.")] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL[@VERSION]", help="With --target. (default: the service's only model)"),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(metavar="ROOT/MODEL[/VERSION]", help="Encode in this process.")
    ] = None,
    engine: Annotated[str, typer.Option(metavar="ENGINE", help="Engine of the run: local.")] = "local",
    device: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", help="With --bundle: auto, cpu, cuda or cuda:N. (default: auto)"),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(metavar="PRECISION", help="With --bundle: fp32, fp16 or int8. (default: fp32)"),
    ] = None,
    batch_rows: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Rows per encoder call. (default: 128; 1024 on a GPU; 256 with --target)"
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Threads that decode files. On a CPU, as many threads encode. (default: all CPUs)",
        ),
    ] = None,
    in_flight: Annotated[
        int | None, typer.Option(metavar="N", help="With --target: calls at the same time. (default: 4)")
    ] = None,
    log_variance: Annotated[
        bool, typer.Option("--log-variance", metavar="", help="Add the column log_variance.")
    ] = False,
    on_error: Annotated[
        str,
        typer.Option(
            metavar="fail|skip",
            help="For a file that is not an image: fail, or skip it and list it at the end.",
        ),
    ] = "fail",
    max_pixels: Annotated[
        int, typer.Option(metavar="N", help="Largest width x height of an image file.")
    ] = DEFAULT_MAX_PIXELS,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", metavar="", help="Replace SINK if it exists.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print the summary as JSON.")] = False,
) -> None:
    """Encode every image of SOURCE and write the posterior means to SINK.

    SINK appears when the run is complete. It does not appear if the run fails or is stopped.
    """
    flags = _EncoderFlags(
        target=target,
        model=model,
        bundle=bundle,
        device=device,
        precision=precision,
        threads=threads,
        in_flight=in_flight,
    )
    flags.check()
    if engine != "local":
        raise BadUse(f"--engine is {engine!r}: it must be local")
    if on_error not in ("fail", "skip"):
        raise BadUse(f"--on-error is {on_error!r}: it must be fail or skip")
    _check_range("--batch-rows", batch_rows, MAX_BATCH_ROWS)
    _check_range("--max-pixels", max_pixels, MAX_PIXELS)

    from convvae_service.engine.cpus import available_cpus
    from convvae_service.images import open_source
    from convvae_service.pipeline.progress import progress_bar
    from convvae_service.pipeline.run import RunSettings, embed
    from convvae_service.pipeline.sink import Provenance
    from convvae_service.pipeline.sink_kinds import check_sink, open_sink
    from convvae_service.pipeline.summary import summary_json, summary_line

    check_sink(sink, overwrite=overwrite)
    images = open_source(source, max_pixels=max_pixels)
    with closing(flags.open()) as encoder:
        info = encoder.info
        images.check(info.input)
        if log_variance and not info.has_log_variance:
            raise BadModel(f"model {info.input.model!r} has no log-variance: omit --log-variance")
        settings = RunSettings(
            batch_rows=batch_rows or encoder.batch_rows,
            threads=encoder.lanes + (threads or available_cpus()),
            log_variance=log_variance,
            skip=on_error == "skip",
        )
        console = Console(stderr=True)
        provenance = Provenance(encoder=info, source=images.name, log_variance=log_variance)
        with interrupt_on_signals():
            with progress_bar(console, len(images)) as advance:
                output = open_sink(sink, provenance, overwrite=overwrite)
                summary = embed(images, encoder, output, settings, advance=advance)
            lines = [f"skipped {row.id}: {row.reason}" for row in summary.skipped[:MAX_LISTED]]
            if len(summary.skipped) > MAX_LISTED:
                lines.append(f"skipped {len(summary.skipped) - MAX_LISTED} more: --json lists all")
            if images.left_out.counts:
                lines.append(str(images.left_out))
            _print(
                lines, summary_json(summary, info, sink) if json else summary_line(summary, info, sink), sink
            )


def _print(lines: list[str], summary: str, sink: Path) -> None:
    """Print lines to stderr, and then the summary to stdout."""
    with suppress(OSError):
        for line in lines:
            typer.echo(line, err=True)
    try:
        typer.echo(summary)
    except OSError as error:
        # Python would fail again when it flushes the stream at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise RunFailed(f"{sink} is complete, but stdout cannot be written: {error.strerror}") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class _EncoderFlags:
    """The flags that choose the encoder of a run: a bundle in this process, or a service."""

    target: str | None
    model: str | None
    bundle: Path | None
    device: str | None
    precision: str | None
    threads: int | None
    in_flight: int | None

    def check(self) -> None:
        """Raise `BadUse` if a flag is out of range, or does not belong to the kind of encoder."""
        if (self.target is None) == (self.bundle is None):
            raise BadUse("give either --target HOST:PORT or --bundle ROOT/MODEL")
        if self.target is None:
            _refuse("--target", {"--model": self.model, "--in-flight": self.in_flight})
        else:
            _refuse("--bundle", {"--device": self.device, "--precision": self.precision})
        if self.device is not None and not is_device_name(self.device):
            raise BadUse(f"--device is {self.device!r}: it must be auto, cpu, cuda or cuda:N")
        _check_range("--threads", self.threads, MAX_THREADS)
        _check_range("--in-flight", self.in_flight, MAX_THREADS)

    def open(self) -> "ImageEncoder":
        """Open the encoder.

        Raises:
            BadModel: The bundle or the service cannot be used.
        """
        if self.target is not None:
            from convvae_service.pipeline.remote import RemoteEncoder

            return RemoteEncoder(self.target, self.model or "", in_flight=self.in_flight or 4)
        assert self.bundle is not None
        from convvae_service.pipeline.local import LocalEncoder, find_version

        return LocalEncoder(
            find_version(self.bundle),
            device=self.device or "auto",
            precision=cast("Precision | None", self.precision),
            threads=self.threads,
        )


def _refuse(needed: str, flags: dict[str, object]) -> None:
    """Raise `BadUse` if one of these flags, which belong to the flag `needed`, is given."""
    for name, value in flags.items():
        if value is not None:
            raise BadUse(f"{name} needs {needed}")


def _check_range(name: str, value: int | None, largest: int) -> None:
    if value is not None and not 1 <= value <= largest:
        raise BadUse(f"{name} is {value}: it must be 1 to {largest}")
