"""Export a run as the command `export` does: as the next version of a model."""

from dataclasses import replace
from pathlib import Path

from convvae_trainer.commands.stored_run import DataLocation, StoredRun
from convvae_trainer.compute.process import configure_process
from convvae_trainer.data.dataset import Dataset, load_dataset
from convvae_trainer.errors import BadRun
from convvae_trainer.evaluation.advice import advised
from convvae_trainer.evaluation.metrics import evaluate_run
from convvae_trainer.exports.publish import Exported, check_target, export
from convvae_trainer.runs.training import finish

__all__ = ["run_export"]

_AS_RECORDED = DataLocation()


def run_export(
    run_dir: Path,
    *,
    models: Path,
    name: str,
    data: DataLocation = _AS_RECORDED,
    unfinished: bool = False,
    fingerprints: bool = True,
) -> Exported:
    """Export the checkpoint of a run. The data of the run serve for the parity check and the pictures.

    Args:
        run_dir: The run folder.
        models: The model repository.
        name: The name of the model.
        data: The place of the run's data.
        unfinished: Whether a run that has not ended is exported too. The version then says so.
        fingerprints: Whether the version has the fingerprints of the training images that the run keeps.

    Raises:
        BadRun: The run has not ended, it trains no encoder yet, or the data are not those of the run.
        BadData: The data set is missing or damaged.
        ExportFailed: ONNX Runtime does not compute what PyTorch computes.
    """
    check_target(models, name)
    configure_process()
    stored = StoredRun.load(run_dir)
    if not stored.has_ended and not unfinished:
        raise BadRun(
            f"{stored.unfinished_text}: {stored.resume_command}, or export it as it is with --unfinished"
        )
    config = stored.config_with(
        dataset=data.name,
        test_dataset=data.test_dataset,
        validation_dataset=data.validation_dataset,
        data_root=data.data_root,
    )
    dataset = data.given
    if not isinstance(dataset, Dataset):
        dataset = load_dataset(config, download=data.download, source=dataset)
    stored.folder.check_same(config, dataset)
    if not stored.has_ended:
        finish(stored.train_state, dataset.train)
    figures = stored.folder.read_evaluation() if stored.has_ended else None
    if figures is None:
        trained_on = stored.folder.read_trained_on()
        evaluation = evaluate_run(stored.train_state, dataset, trained_on=trained_on)
        evaluation = replace(evaluation, left_out=stored.folder.told_left_out(evaluation.left_out))
        began_trained = stored.folder.record.weights_from is not None
        metrics = stored.folder.read_metrics()
        evaluation = advised(evaluation, stored.train_state, metrics, began_trained=began_trained)
        figures = evaluation.to_json_object()
    return export(
        stored.folder,
        stored.train_state,
        dataset,
        stored.progress,
        figures,
        models=models,
        name=name,
        with_fingerprints=fingerprints,
    )
