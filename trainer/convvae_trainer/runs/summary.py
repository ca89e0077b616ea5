"""The lines that a run prints before it trains: data, model, objective, device."""

from collections.abc import Iterator

from convvae_trainer.data.folder import MAX_NAMED
from convvae_trainer.objectives.registry import objective_class
from convvae_trainer.runs.context import RunContext
from convvae_trainer.runs.folder import RunFolder
from convvae_trainer.step.train_state import TrainState

__all__ = ["summary_lines"]


def summary_lines(context: RunContext, run: RunFolder, train_state: TrainState) -> Iterator[str]:
    """Yield the lines that describe a run."""
    config, dataset, record = run.config, context.dataset, run.record
    yield f"data       {dataset.name}: {len(dataset.train)} training images of {dataset.image}"
    yield f"test       {dataset.split}"
    for text in dataset.skipped[:MAX_NAMED]:
        yield f"skipped    {text}"
    if len(dataset.skipped) > MAX_NAMED:
        yield f"skipped    {len(dataset.skipped) - MAX_NAMED} more files"
    if context.validation_images is not None:
        yield f"validation {len(context.validation_images)} of the training images, for early stopping"
    parameters = train_state.model.num_parameters()
    yield f"model      {parameters:,} parameters, {config.latent_dim} latent dimensions"
    yield f"objective  {objective_class(config.objective).describe(config)}"
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
