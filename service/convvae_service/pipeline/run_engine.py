"""The engine of a run: what encodes the images of a source and writes them to an output."""

from dataclasses import replace
from typing import Protocol

from convvae_service.engine.cpus import available_cpus
from convvae_service.images import DecodingProcesses, Source
from convvae_service.pipeline.encoded_batches import threads_for
from convvae_service.pipeline.encoder import EncoderInfo, ImageEncoder
from convvae_service.pipeline.output import RunOutput
from convvae_service.pipeline.progress import Progress
from convvae_service.pipeline.run import RunSettings, embed
from convvae_service.pipeline.summary import RunSummary

__all__ = ["LocalEngine", "RunEngine"]


class RunEngine(Protocol):
    """Encodes the images of a run with one model version."""

    @property
    def info(self) -> EncoderInfo:
        """Description of the encoder graph."""

    @property
    def batch_rows(self) -> int:
        """Images that are best encoded together."""

    def embed(
        self, source: Source, output: RunOutput, settings: RunSettings, *, progress: Progress | None = None
    ) -> RunSummary:
        """Encode every row of `source` and write it to `output`; see `run.embed`."""

    def close(self) -> None:
        """Release the encoder."""


class LocalEngine:
    """Threads of this process, and processes that decode image files; see `RunEngine`.

    Args:
        encoder: The encoder.
        threads: Number of processes that decode. None takes as many as there are CPUs.
    """

    def __init__(self, encoder: ImageEncoder, *, threads: int | None) -> None:
        self._encoder = encoder
        self._decoders = threads or available_cpus()
        self.info = encoder.info
        self.batch_rows = encoder.batch_rows

    def embed(
        self, source: Source, output: RunOutput, settings: RunSettings, *, progress: Progress | None = None
    ) -> RunSummary:
        """Encode every row of `source` and write it to `output`; see `run.embed`."""
        threads = threads_for(source, self._encoder, decoders=self._decoders)
        settings = replace(settings, threads=threads)
        with DecodingProcesses(self._decoders) as decode:
            return embed(source, self._encoder, output, settings, decode=decode, progress=progress)

    def close(self) -> None:
        """Close the encoder."""
        self._encoder.close()
