"""The lines that a run prints before it trains: data, model, objective, device."""

from collections.abc import Iterator

from convvae_trainer.data.classes import class_counts
from convvae_trainer.data.dataset import Dataset
from convvae_trainer.data.folder import MAX_NAMED
from convvae_trainer.objectives.registry import objective_class
from convvae_trainer.runs.context import RunContext
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.step.train_state import TrainState

__all__ = ["data_lines", "summary_lines"]

_MAX_CLASSES = 20


def summary_lines(context: RunContext, run: RunFolder, train_state: TrainState) -> Iterator[str]:
    """Yield the lines that describe a run."""
    config, record = run.config, run.record
    yield from data_lines(context.dataset)
    parameters = train_state.model.num_parameters()
    yield f"model      {parameters:,} parameters, {config.latent_dim} latent dimensions"
    yield f"objective  {objective_class(config.objective).describe(config)}"
    if context.likelihood_reason:
        yield f"likelihood {config.likelihood}, since {context.likelihood_reason}"
    words = [
        f"{train_state.device}, {record.precision} ({record.reason}), CPU threads {record.threads}",
        "channels last" if train_state.is_channels_last else "channels first",
    ]
    if train_state.is_graphed:
        words.append("CUDA graphs")
    if context.dist.size > 1:
        words.append(f"{context.dist.size} processes")
    yield f"device     {', '.join(words)}"
    yield f"run        {run.path}"


def data_lines(dataset: Dataset) -> Iterator[str]:
    """Yield the lines that describe a data set: its images, classes and parts, and what is odd about it."""
    resized = f", resized from {dataset.resized_from}" if dataset.resized_from else ""
    yield f"data       {dataset.name}: {len(dataset.train)} training images of {dataset.image}{resized}"
    yield f"classes    {_classes(dataset)}"
    yield f"test       {dataset.split}"
    yield f"validation {dataset.validation_split}"
    for hint in dataset.hints:
        yield f"hint       {hint}"
    for text in dataset.skipped[:MAX_NAMED]:
        yield f"skipped    {text}"
    if len(dataset.skipped) > MAX_NAMED:
        yield f"skipped    {len(dataset.skipped) - MAX_NAMED} more files"


def _classes(dataset: Dataset) -> str:
    """Return words for the classes of the training images, with the number of images of each."""
    if dataset.train_labels is None:
        return "none, since the images have no labels"
    counts = class_counts(dataset.train_labels, dataset.class_names)
    named = ", ".join(f"{name} ({count})" for name, count in counts[:_MAX_CLASSES])
    more = f", and {len(counts) - _MAX_CLASSES} more" if len(counts) > _MAX_CLASSES else ""
    return f"{len(counts)}: {named}{more}"
