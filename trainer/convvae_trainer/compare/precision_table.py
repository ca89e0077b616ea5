"""The report's table of precisions: a line for each precision of a version."""

from collections.abc import Callable, Sequence
from html import escape

from convvae_trainer.compare.precisions import SPEED_BATCH, PrecisionFigures

__all__ = ["precision_table"]

# The head of a column, its meaning, and the text of a line's cell.
_COLUMNS: tuple[tuple[str, str, Callable[[PrecisionFigures], str]], ...] = (
    ("ELBO", "nats per image", lambda row: "" if row.elbo is None else f"{row.elbo:.2f}"),
    ("PSNR", "dB", lambda row: f"{row.psnr_db:.2f}"),
    ("Cosine", "of embeddings with fp32, mean", lambda row: f"{row.accuracy.cosine_mean:.5f}"),
    ("Cosine", "the 1st percentile", lambda row: f"{row.accuracy.cosine_p01:.5f}"),
    ("Size", "both graphs, MB", lambda row: f"{row.bytes / 1e6:.2f}"),
    ("Encode", "images/s", lambda row: f"{row.encode_rows_s:,.0f}"),
    ("Decode", "latents/s", lambda row: f"{row.decode_rows_s:,.0f}"),
)


def precision_table(figures: Sequence[PrecisionFigures]) -> str:
    """Return the table as HTML."""
    heads = "".join(
        f"<th scope=col>{escape(name)}<small>{escape(meaning)}</small></th>" for name, meaning, _ in _COLUMNS
    )
    lines = "\n".join(_line(row) for row in figures)
    return (
        f'<div class="wide"><table>\n<thead><tr><th></th>{heads}</tr></thead>\n<tbody>\n{lines}\n'
        "</tbody></table></div>\n"
        f"<p class=note>On {figures[0].accuracy.images} test images. The ELBO is taken at the posterior mean."
        f" Speed is of batches of {SPEED_BATCH} rows on all CPUs of this machine, where fp16 is computed in"
        " fp32.</p>"
    )


def _line(row: PrecisionFigures) -> str:
    cells = "".join(
        f"<td>{escape(text)}</td>" if (text := cell(row)) else "<td class=none>&ndash;</td>"
        for _, _, cell in _COLUMNS
    )
    return f"<tr><th scope=row>{escape(row.label)}<small>{row.precision}</small></th>{cells}</tr>"
