"""The command line `convvae-train`. torch and its like load inside the commands, so that --help is quick."""

import importlib.util
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from convvae_trainer.config import config_from, parse_image_size, read_settings
from convvae_trainer.errors import BadConfig, Interrupted, MissingExtra

if TYPE_CHECKING:
    from convvae_trainer.evaluate import Evaluation
    from convvae_trainer.export import Exported

__all__ = ["app"]

TRAINER_PACKAGES = ("torch", "torchvision", "safetensors", "onnx", "onnxscript")

app = typer.Typer(
    name="convvae-train",
    help="Train convolutional VAEs and export them for the service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a run that `fit` made.")]
Models = Annotated[Path, typer.Option(help="Model repository: versions go to MODELS/NAME/1, 2, …")]
Name = Annotated[str, typer.Option(help="Name of the model.")]
DataRoot = Annotated[str | None, typer.Option(help="Folder that holds torchvision's sets. [default: data]")]
Download = Annotated[bool, typer.Option("--download", help="Fetch a torchvision set that is absent.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N. [default: auto]")]


@app.command()
def fit(
    run_dir: Annotated[Path, typer.Option(help="New folder for settings, metrics and checkpoints.")],
    dataset: Annotated[
        str | None,
        typer.Option(help="digits, a torchvision set such as mnist, or a path: folder, .npy, .npz, idx."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML (or a run's config.json) with any setting; flags win.")
    ] = None,
    data_root: DataRoot = None,
    download: Download = False,
    train_images: Annotated[int | None, typer.Option(help="Use the first so many training images.")] = None,
    image_size: Annotated[
        str | None, typer.Option(metavar="H[xW]", help="Resize to this, 8 to 256 pixels a side.")
    ] = None,
    resize_mode: Annotated[str | None, typer.Option(help="crop or stretch. [default: crop]")] = None,
    resize_filter: Annotated[str | None, typer.Option(help="Pillow filter. [default: bicubic]")] = None,
    objective: Annotated[str | None, typer.Option(help="vae.")] = None,
    likelihood: Annotated[
        str | None, typer.Option(help="bernoulli or gaussian. [default: bernoulli]")
    ] = None,
    binarize: Annotated[
        str | None, typer.Option(help="none, or dynamic: draw binary images anew in every pass.")
    ] = None,
    latent_dim: Annotated[int | None, typer.Option(help="[default: 32]")] = None,
    width: Annotated[int | None, typer.Option(help="Channels after the first halving. [default: 32]")] = None,
    blocks: Annotated[int | None, typer.Option(help="Residual blocks a level. [default: 0]")] = None,
    hidden: Annotated[int | None, typer.Option(help="Units of the dense layers. [default: 512]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images. [default: 30]")] = None,
    minutes: Annotated[float | None, typer.Option(help="Training time instead of epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="[default: 128]")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak rate of AdamW. [default: 0.002]")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="[default: 0.0001]")] = None,
    beta: Annotated[float | None, typer.Option(help="Weight of the rate. [default: 1]")] = None,
    kl_warmup_epochs: Annotated[
        float | None, typer.Option(help="Epochs in which the rate's weight rises from 0.")
    ] = None,
    ema_decay: Annotated[float | None, typer.Option(help="Of the averaged weights. [default: 0.999]")] = None,
    seed: Annotated[int | None, typer.Option(help="[default: 0]")] = None,
    device: Device = None,
    precision: Annotated[
        str | None, typer.Option(help="auto (measured), fp32 or bf16. [default: auto]")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Of the CPU. [default: measured]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --run-dir.")] = False,
    models: Annotated[Path | None, typer.Option(help="Export to this model repository at the end.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the exported model.")] = None,
) -> None:
    """Train on a data set; with --models and --name, export at the end."""
    flags = {
        "dataset": dataset,
        "data_root": data_root,
        "train_images": train_images,
        "image_size": None if image_size is None else parse_image_size(image_size),
        "resize_mode": resize_mode,
        "resize_filter": resize_filter,
        "objective": objective,
        "likelihood": likelihood,
        "binarize": binarize,
        "latent_dim": latent_dim,
        "width": width,
        "blocks": blocks,
        "hidden": hidden,
        "epochs": epochs,
        "minutes": minutes,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "beta": beta,
        "kl_warmup_epochs": kl_warmup_epochs,
        "ema_decay": ema_decay,
        "seed": seed,
        "device": device,
        "precision": precision,
        "threads": threads,
    }
    if (models is None) != (name is None):
        raise BadConfig("--models and --name go together: where to export, and as what")
    from_file = {} if config is None else read_settings(config)
    _require(*TRAINER_PACKAGES)
    from convvae_trainer import commands

    settings = config_from(commands.saved_settings(run_dir) if resume else {}, from_file, flags)
    target = None if models is None or name is None else (models, name)
    if target is not None:
        _require_runtime()
    console = Console()
    try:
        done = commands.run_fit(
            settings,
            run_dir,
            resume=resume,
            download=download,
            target=target,
            command=_command_line(),
            console=console,
        )
    except Interrupted as stopped:
        # What is not among the run's settings, or may differ from them.
        places = {"--models": models, "--name": name, "--data-root": data_root, "--device": device}
        if resume:
            places["--dataset"] = dataset
        command = _resume_command(run_dir, places)
        raise Interrupted(stopped.number, step=stopped.step, resume=command) from None
    _print_evaluation(console, done.evaluation)
    _say(console, f"run           {run_dir}")
    if done.exported is None:
        _say(console, f"next          convvae-train export {_quoted(run_dir)} --models models --name NAME")
    else:
        _print_exported(console, done.exported, models=target[0] if target else Path())


@app.command()
def export(
    run_dir: RunDir,
    models: Models,
    name: Name,
    dataset: Annotated[
        str | None, typer.Option(help="Where the run's data lie now, if they have moved.")
    ] = None,
    data_root: DataRoot = None,
    download: Download = False,
) -> None:
    """Publish a run's weights as the next version of a model, checked against PyTorch."""
    _require(*TRAINER_PACKAGES)
    _require_runtime()
    from convvae_trainer import commands

    exported = commands.run_export(
        run_dir, models=models, name=name, dataset=dataset, data_root=data_root, download=download
    )
    _print_exported(Console(), exported, models=models)


@app.command()
def evaluate(
    run_dir: RunDir,
    dataset: Annotated[
        str | None, typer.Option(help="Other data: their own test images, or all of them.")
    ] = None,
    data_root: DataRoot = None,
    download: Download = False,
    binarize: Annotated[str | None, typer.Option(help="none or dynamic. [default: the run's]")] = None,
    seed: Annotated[int, typer.Option(help="Of the posterior draws.")] = 0,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Evaluate a run on test images: ELBO, distortion, rate, active units."""
    _require(*TRAINER_PACKAGES)
    from convvae_trainer import commands

    evaluation = commands.run_evaluate(
        run_dir,
        dataset=dataset,
        data_root=data_root,
        download=download,
        binarize=binarize,
        seed=seed,
        device=device,
    )
    if as_json:
        sys.stdout.write(json.dumps(evaluation.to_json_object(), indent=2) + "\n")
    else:
        _print_evaluation(Console(), evaluation)


def _require(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "trainer")


def _require_runtime() -> None:
    if importlib.util.find_spec("onnxruntime") is None:
        raise MissingExtra("onnxruntime", "gpu", "cpu")


def _command_line() -> str:
    return shlex.join(["convvae-train", *sys.argv[1:]])


def _resume_command(run_dir: Path, places: Mapping[str, object]) -> str:
    given = [word for name, value in places.items() if value is not None for word in (name, str(value))]
    return shlex.join(["convvae-train", "fit", "--resume", "--run-dir", str(run_dir), *given])


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def _print_evaluation(console: Console, evaluation: "Evaluation") -> None:
    _say(console, f"evaluated     {evaluation.dataset}: {evaluation.split}")
    _say(console, f"test ELBO     {evaluation.elbo:.2f} nats per image ({evaluation.images} images)")
    _say(console, f"distortion    {evaluation.distortion:.2f}")
    _say(console, f"rate          {evaluation.rate:.2f}")
    _say(console, f"bits per dim  {evaluation.bits_per_dim:.4f}")
    _say(console, f"active units  {evaluation.active_units} of {evaluation.latent_dim}")
    if evaluation.sigma is not None:
        _say(console, f"sigma         {evaluation.sigma:.4f} of a pixel in 0..1")


def _print_exported(console: Console, exported: "Exported", *, models: Path) -> None:
    parity: Any = exported.manifest.parity["fp32"]
    _say(console, f"exported      {exported.folder}")
    _say(
        console,
        f"parity        mean {parity.mean:.1e}, log-variance {parity.log_variance:.1e},"
        f" images {parity.image_steps} of 255",
    )
    _say(console, f"pictures      {exported.folder / 'reconstructions.png'}, samples.png beside it")
    _say(console, f"next          convvae-serve --models {_quoted(models)}")
