"""The command `convvae-train fit`: every setting of a run as a flag. torch loads inside it."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from convvae_trainer.cli.terminal import (
    TRAINER_PACKAGES,
    print_evaluation,
    print_exported,
    quoted,
    require,
    require_runtime,
)
from convvae_trainer.console import say
from convvae_trainer.errors import BadConfig, Interrupted
from convvae_trainer.settings.config import config_from
from convvae_trainer.settings.layers import FLAGS, Layer, read_settings
from convvae_trainer.settings.presets import preset_settings

__all__ = ["DataRoot", "Device", "Download", "fit"]

DataRoot = Annotated[str | None, typer.Option(help="Folder that holds torchvision's sets. [default: data]")]
Download = Annotated[bool, typer.Option("--download", help="Fetch a torchvision set that is absent.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N. [default: auto]")]


def fit(
    run_dir: Annotated[Path, typer.Option(help="New folder for settings, metrics and checkpoints.")],
    dataset: Annotated[
        str | None,
        typer.Option(help="digits, a torchvision set such as mnist, or a path: folder, .npy, .npz, idx."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="mnist, fashion-mnist, cifar10 or faces64: settings below file and flags."),
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
    objective: Annotated[
        str | None, typer.Option(help="ae, vae, vae-disl or vae-gan. [default: vae]")
    ] = None,
    likelihood: Annotated[
        str | None,
        typer.Option(
            help="bernoulli, gaussian or discretised-logistic. [default: bernoulli; with a GAN gaussian]"
        ),
    ] = None,
    sigma: Annotated[
        float | None, typer.Option(help="Fixed sigma of the Gaussian. [default: learned]")
    ] = None,
    binarize: Annotated[
        str | None, typer.Option(help="none, or dynamic: draw binary images anew in every pass.")
    ] = None,
    latent_dim: Annotated[int | None, typer.Option(help="[default: 32]")] = None,
    width: Annotated[int | None, typer.Option(help="Channels after the first halving. [default: 32]")] = None,
    last_side: Annotated[
        int | None, typer.Option(help="Halve sides longer than this, until none is. [default: 7]")
    ] = None,
    blocks: Annotated[
        int | None, typer.Option(help="Residual blocks a level but the first. [default: 0]")
    ] = None,
    hidden: Annotated[int | None, typer.Option(help="Units of the dense layers. [default: 512]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images. [default: 30]")] = None,
    minutes: Annotated[float | None, typer.Option(help="Training time instead of epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="[default: 128]")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak rate of AdamW. [default: 0.002; with a GAN 0.0005]")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="[default: 0.0001]")] = None,
    beta: Annotated[float | None, typer.Option(help="Weight of the rate. [default: 1]")] = None,
    kl_warmup_epochs: Annotated[
        float | None, typer.Option(help="Epochs in which the rate's weight rises from 0.")
    ] = None,
    free_bits: Annotated[
        float | None, typer.Option(help="Nats per latent dimension below which the rate is free.")
    ] = None,
    importance_samples: Annotated[
        int | None, typer.Option(help="Draws of the importance-weighted bound. [default: 1, the ELBO]")
    ] = None,
    terms: Annotated[str | None, typer.Option(help="both, distortion or rate. [default: both]")] = None,
    adversarial_loss: Annotated[
        str | None, typer.Option(help="non-saturating or minimax. [default: non-saturating]")
    ] = None,
    adversarial_weight: Annotated[
        float | None, typer.Option(help="Of the adversarial gradient in the decoder. [default: 0.5]")
    ] = None,
    adaptive_weight: Annotated[
        bool | None, typer.Option(help="Bring that gradient to the reconstruction's size. [default: yes]")
    ] = None,
    adversarial_start: Annotated[
        float | None, typer.Option(help="Share of the run before the decoder gets it. [default: 0.1]")
    ] = None,
    discriminator_width: Annotated[int | None, typer.Option(help="[default: 32]")] = None,
    gan_share: Annotated[
        float | None, typer.Option(help="Share of a vae-disl run that trains the GAN. [default: 0.3]")
    ] = None,
    early_stop_epochs: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without a better validation ELBO.")
    ] = None,
    ema_decay: Annotated[float | None, typer.Option(help="Of the averaged weights. [default: 0.999]")] = None,
    seed: Annotated[int | None, typer.Option(help="[default: 0]")] = None,
    device: Device = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16, or auto: bf16 if the device has it. [default: auto]")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads. [default: all available CPUs]")] = None,
    compile: Annotated[  # noqa: A002 - it is the setting's name
        bool | None, typer.Option(help="Compile networks and loss with torch.compile. [default: no]")
    ] = None,
    cuda_graph: Annotated[
        bool | None, typer.Option(help="Replay steps as CUDA graphs, on one GPU. [default: yes]")
    ] = None,
    tensorboard: Annotated[
        bool | None, typer.Option(help="Write TensorBoard's files. [default: yes]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --run-dir.")] = False,
    models: Annotated[Path | None, typer.Option(help="Export to this model repository at the end.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the exported model.")] = None,
) -> None:
    """Train on a data set; with --models and --name, export at the end."""
    flags = {
        "dataset": dataset,
        "data_root": data_root,
        "train_images": train_images,
        "image_size": image_size,
        "resize_mode": resize_mode,
        "resize_filter": resize_filter,
        "objective": objective,
        "likelihood": likelihood,
        "binarize": binarize,
        "latent_dim": latent_dim,
        "width": width,
        "last_side": last_side,
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
        "sigma": sigma,
        "free_bits": free_bits,
        "importance_samples": importance_samples,
        "terms": terms,
        "adversarial_loss": adversarial_loss,
        "adversarial_weight": adversarial_weight,
        "adaptive_weight": adaptive_weight,
        "adversarial_start": adversarial_start,
        "discriminator_width": discriminator_width,
        "gan_share": gan_share,
        "early_stop_epochs": early_stop_epochs,
        "compile": compile,
        "cuda_graph": cuda_graph,
        "tensorboard": tensorboard,
    }
    if (models is None) != (name is None):
        raise BadConfig("--models and --name go together: where to export, and as what")
    from_preset = Layer(preset_settings(preset), f"preset {preset}")
    from_file = Layer({}) if config is None else read_settings(config)
    require(*TRAINER_PACKAGES)
    from convvae_trainer.cli import commands

    saved = Layer(commands.saved_settings(run_dir) if resume else {}, "the run", is_fixed=True)
    settings = config_from(saved, from_preset, from_file, Layer(flags, FLAGS))
    target = None if models is None or name is None else (models, name)
    if target is not None:
        require_runtime()
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
        typed = [] if not resume or cuda_graph is None else [f"--{'' if cuda_graph else 'no-'}cuda-graph"]
        command = _resume_command(run_dir, places, typed)
        raise Interrupted(stopped.number, step=stopped.step, resume=command) from None
    if done is None:
        return
    print_evaluation(console, done.evaluation)
    say(console, f"run           {run_dir}")
    if done.exported is None:
        say(console, f"next          convvae-train export {quoted(run_dir)} --models models --name NAME")
    else:
        print_exported(console, done.exported, models=target[0] if target else Path())


def _command_line() -> str:
    return shlex.join(["convvae-train", *sys.argv[1:]])


def _resume_command(run_dir: Path, places: Mapping[str, object], flags: Sequence[str]) -> str:
    given = [word for name, value in places.items() if value is not None for word in (name, str(value))]
    return shlex.join(["convvae-train", "fit", "--resume", "--run-dir", str(run_dir), *given, *flags])
