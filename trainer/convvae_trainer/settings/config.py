"""All settings of a run, each declared once, as one frozen object."""

from dataclasses import dataclass
from typing import Literal

from convvae_trainer.settings.declaration import Panel, declared_settings, required, setting
from convvae_trainer.settings.objectives import OBJECTIVES
from convvae_trainer.settings.rules import Rules

__all__ = ["DEFAULT_EPOCHS", "LAST_SIDE", "MAX_SEED", "SETTINGS", "Config"]

DEFAULT_EPOCHS = 30
LAST_SIDE = 7
# Every reader of JSON keeps whole numbers up to this one exactly.
MAX_SEED = 2**53 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """The settings of a run, each declared here once.

    The flags of `convvae-train fit`, their help, the checks and the table in the documentation are made from
    these fields. With the same data, library versions, precision and threads, equal settings give the same
    weights on a CPU of the same kind, bit by bit. They do not with `minutes`, where the speed of the machine
    decides the number of steps, and not on a GPU.

    Raises:
        BadConfig: A value is not allowed, or two values contradict each other.
    """

    dataset: str = required(
        Panel.DATA,
        "Train on this data set: digits, a torchvision set such as mnist, a folder of images, or an .npy,"
        " .npz or idx file.",
    )
    data_root: str = setting("data", Panel.DATA, "Look for torchvision sets in this folder.")
    train_images: int | None = setting(
        None,
        Panel.DATA,
        "Use only this many training images, the first ones.",
        bounds=(2, 10**9),
        default_text="all",
    )
    test_dataset: str | None = setting(
        None,
        Panel.DATA,
        "Test on this data set, of any kind that dataset may be. It is never trained on.",
        default_text="the data set's own test part, or else about a tenth of its images",
    )
    validation_dataset: str | None = setting(
        None,
        Panel.DATA,
        "Validate on this data set, of any kind that dataset may be. It is never trained on.",
        default_text="the data set's own validation part, or else validation_share",
    )
    validation_share: float | None = setting(
        None,
        Panel.DATA,
        "Keep about this share of the training images for validation: they are not trained on, and their ELBO"
        " is computed after each epoch. 0 validates nothing.",
        bounds=(0.0, 0.5),
        default_text="0.05, and at most 1000 images",
    )
    image_size: tuple[int, int] | None = setting(
        None,
        Panel.DATA,
        "Resize all images to this height and width.",
        values="8 to 256 pixels a side",
        default_text="the size of the data",
    )
    resize_mode: Literal["crop", "stretch"] = setting(
        "crop", Panel.DATA, "Crop images of another shape to their middle, or stretch them."
    )
    resize_filter: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = setting(
        "bicubic", Panel.DATA, "Resize with this filter of Pillow."
    )
    resize_decode: Literal["full", "scaled"] = setting(
        "scaled", Panel.DATA, "Decode a large JPEG file at full size, or scaled down by the decoder: faster."
    )
    max_pixels: int = setting(
        100_000_000,
        Panel.DATA,
        "Read image files up to this width x height.",
        bounds=(1, 10**12),
        unit="pixels",
    )
    on_error: Literal["fail", "skip"] = setting(
        "fail", Panel.DATA, "For image files that cannot be used: fail and name them, or skip them."
    )
    binarize: Literal["none", "dynamic"] = setting(
        "none",
        Panel.DATA,
        "Draw each pixel as 0 or 1, with its grey level as the probability. Training images are drawn again"
        " in each epoch, test images once.",
    )

    latent_dim: int = setting(32, Panel.NETWORKS, "Use this number of latent dimensions.", bounds=(1, 65536))
    width: int = setting(
        32,
        Panel.NETWORKS,
        "Use this number of channels after the first halving of the image. The number doubles with each"
        " further halving, up to four times this.",
        bounds=(1, 1024),
    )
    # An upper limit of 8, the smallest side of an image, would allow networks without a convolution.
    last_side: int = setting(
        LAST_SIDE,
        Panel.NETWORKS,
        "Halve the sides of the image until none is longer than this.",
        bounds=(1, 7),
        unit="pixels",
    )
    blocks: int = setting(
        0,
        Panel.NETWORKS,
        "Add this number of residual blocks at each resolution but the first.",
        bounds=(0, 16),
    )
    hidden: int = setting(
        512,
        Panel.NETWORKS,
        "Use this number of units in the dense layers between convolutions and latents. 0 leaves these layers"
        " out.",
        bounds=(0, 65536),
    )

    objective: str = setting(
        "vae", Panel.OBJECTIVE, "Train the networks for this objective.", choices=OBJECTIVES
    )
    likelihood: Literal["auto", "bernoulli", "gaussian", "discretised-logistic"] = setting(
        "auto",
        Panel.OBJECTIVE,
        "Model the pixels with this likelihood. auto is bernoulli for binary and nearly binary images, else"
        " gaussian.",
    )
    sigma: float | None = setting(
        None,
        Panel.OBJECTIVE,
        "Fix the standard deviation of the Gaussian likelihood, for pixels from 0 to 1.",
        bounds=(1e-4, 10.0),
        default_text="learned",
    )
    beta: float = setting(
        1.0,
        Panel.OBJECTIVE,
        "Multiply the rate by this weight in the loss. With 1 the loss is -ELBO.",
        bounds=(0.0, 1e4),
    )
    kl_warmup_epochs: float = setting(
        0.0,
        Panel.OBJECTIVE,
        "Raise the weight of the rate from 0 to beta during this time.",
        bounds=(0.0, 1e6),
        unit="epochs",
    )
    free_bits: float = setting(
        0.0,
        Panel.OBJECTIVE,
        "Do not push the rate of a latent dimension, averaged over the batch, below this value.",
        bounds=(0.0, 100.0),
        unit="nats",
    )
    importance_samples: int = setting(
        1,
        Panel.OBJECTIVE,
        "Train the importance-weighted bound with this number of posterior samples per image. With 1 the"
        " bound is the ELBO.",
        bounds=(1, 1000),
    )
    terms: Literal["both", "distortion", "rate"] = setting(
        "both", Panel.OBJECTIVE, "Train both terms of the ELBO, or one alone to show the effect of the other."
    )

    adversarial_loss: Literal["non-saturating", "minimax"] = setting(
        "non-saturating",
        Panel.ADVERSARIAL,
        "Train decoder and discriminator with this loss. Larsen et al. 2016 use minimax.",
    )
    adversarial_weight: float = setting(
        0.5,
        Panel.ADVERSARIAL,
        "Multiply the adversarial gradient of the decoder by this weight, 1 / gamma of Larsen et al. 2016.",
        bounds=(0.0, 1e6),
    )
    adaptive_weight: bool = setting(
        True,
        Panel.ADVERSARIAL,
        "First scale the adversarial gradient to the size of the reconstruction gradient at the decoder's"
        " last layer.",
    )
    adversarial_start: float = setting(
        0.1,
        Panel.ADVERSARIAL,
        "Keep the adversarial gradient from the decoder during this first part of the run.",
        bounds=(0.0, 1.0),
        unit="of the run",
    )
    gradient_penalty: float = setting(
        0.0,
        Panel.ADVERSARIAL,
        "Add the discriminator's squared slope at images of the data to its loss, with this weight.",
        bounds=(0.0, 1e6),
    )
    discriminator_width: int = setting(
        32,
        Panel.ADVERSARIAL,
        "Use this number of channels after the discriminator's first halving.",
        bounds=(1, 1024),
    )
    gan_share: float = setting(
        0.3,
        Panel.ADVERSARIAL,
        "Train the GAN during this first part of the run. Its discriminator then measures reconstructions.",
        bounds=(0.01, 0.99),
        unit="of the run",
    )

    epochs: int | None = setting(
        None,
        Panel.OPTIMISATION,
        "Train for this number of passes over the training images.",
        bounds=(1, 10**6),
        default_text=str(DEFAULT_EPOCHS),
    )
    minutes: float | None = setting(
        None,
        Panel.OPTIMISATION,
        "Train for this time instead of a number of epochs.",
        bounds=(0.001, 1e6),
        unit="minutes",
        default_text="no limit",
    )
    early_stop_epochs: int | None = setting(
        None,
        Panel.OPTIMISATION,
        "Stop after this number of epochs without a better ELBO of the validation images, and keep the best"
        " weights.",
        bounds=(1, 10**6),
        default_text="never",
    )
    batch_size: int = setting(
        128,
        Panel.OPTIMISATION,
        "Use this number of images in each step, for all processes together.",
        bounds=(1, 65536),
    )
    learning_rate: float = setting(
        2e-3,
        Panel.OPTIMISATION,
        "Use this peak learning rate in AdamW. After a linear warm-up it falls to 2 % of the peak along a"
        " cosine.",
        bounds=(1e-9, 10.0),
    )
    warmup_steps: int = setting(
        200,
        Panel.OPTIMISATION,
        "Raise the learning rate to its peak during this number of steps, at most a tenth of the run.",
        bounds=(0, 10**6),
        is_flag=False,
    )
    weight_decay: float = setting(
        1e-4, Panel.OPTIMISATION, "Use this weight decay in AdamW.", bounds=(0.0, 10.0)
    )
    max_gradient_norm: float = setting(
        200.0,
        Panel.OPTIMISATION,
        "Scale longer gradients down to this norm.",
        bounds=(1e-6, 1e12),
        is_flag=False,
    )
    ema_decay: float = setting(
        0.999,
        Panel.OPTIMISATION,
        "Average the weights with this decay. The averages are evaluated and exported. With 0 they are the"
        " last weights.",
        bounds=(0.0, 0.999999),
    )
    seed: int = setting(
        0,
        Panel.OPTIMISATION,
        "Seed the weights, the order of images and all random draws.",
        bounds=(0, MAX_SEED),
    )

    device: str = setting(
        "auto",
        Panel.COMPUTE,
        "Compute on this device. auto takes a GPU where there is one.",
        values="auto, cpu, cuda or cuda:N",
    )
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto",
        Panel.COMPUTE,
        "Compute the networks in this precision. auto is bf16 on a device with bf16 instructions, else fp32."
        " Likelihood and rate are always float32.",
    )
    threads: int | None = setting(
        None,
        Panel.COMPUTE,
        "Use this number of CPU threads in each process.",
        bounds=(1, 1024),
        default_text="all available CPUs",
    )
    compile: bool = setting(
        False,
        Panel.COMPUTE,
        "Compile networks and loss with torch.compile. The start takes up to a minute longer, each step less"
        " time.",
    )
    cuda_graph: bool = setting(
        True,
        Panel.COMPUTE,
        "Replay steps as CUDA graphs on a single GPU, with one launch instead of hundreds.",
    )

    tensorboard: bool = setting(True, Panel.RUN, "Write files for TensorBoard into the run folder.")
    fingerprints: bool = setting(
        True,
        Panel.RUN,
        "Keep fingerprints of the training images in the run folder and in exported versions, so that no test"
        " image is one of them.",
    )

    def __post_init__(self) -> None:
        Rules({name: getattr(self, name) for name in SETTINGS}, SETTINGS).check()

    @property
    def total_epochs(self) -> int | None:
        """The number of epochs to train, or None where `minutes` decides."""
        return None if self.minutes is not None else self.epochs or DEFAULT_EPOCHS


SETTINGS = declared_settings(Config)
