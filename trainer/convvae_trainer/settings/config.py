"""All settings that define a run: one frozen object, from layers such as a file and flags."""

import dataclasses
import difflib
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from convvae_trainer.errors import BadConfig
from convvae_trainer.settings.layers import BadSetting, Layer, Setting
from convvae_trainer.settings.objectives import OBJECTIVES, settings_by_user

__all__ = ["LAST_SIDE", "MAX_SIDE", "MIN_SIDE", "Config", "config_from", "parse_image_size", "to_json_object"]

MIN_SIDE = 8
MAX_SIDE = 256
DEFAULT_EPOCHS = 30
LAST_SIDE = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """A run's settings.

    With the same data, libraries, precision and threads they give the same weights on such a CPU, bit by bit;
    not with `minutes`, where the clock decides how far the run gets, and not on a GPU.
    """

    dataset: str
    """Name (`digits`, or a torchvision set) or path (folder, .npy, .npz, idx)."""
    data_root: str = "data"
    """Folder that holds the torchvision sets."""
    train_images: int | None = None
    """Use only the first so many training images. None: all."""
    image_size: tuple[int, int] | None = None
    """Height and width to resize to. None: as the data are."""
    resize_mode: Literal["crop", "stretch"] = "crop"
    resize_filter: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bicubic"
    objective: str = "vae"
    """What the networks are trained for: a name in the table of `settings/objectives.py`."""
    likelihood: Literal["bernoulli", "gaussian", "discretised-logistic"] = "bernoulli"
    """Of the decoder. `vae-disl` and `vae-gan` need `gaussian`, whose sigma is fitted at their end."""
    sigma: float | None = None
    """Fixed standard deviation of the Gaussian, of pixels in 0..1. None: learned."""
    binarize: Literal["none", "dynamic"] = "none"
    """`dynamic`: grey levels are probabilities, drawn anew in every pass; test images are drawn once."""
    latent_dim: int = 32
    width: int = 32
    """Channels after the first halving; they double with each halving, up to four times this."""
    last_side: int = LAST_SIDE
    """Sides longer than this are halved, until none is: how deep encoder and decoder are."""
    blocks: int = 0
    """Residual blocks after each halving but the first, and before each doubling but the last."""
    hidden: int = 512
    """Units of a dense layer between the convolutions and the latents. 0: none."""
    epochs: int | None = None
    """Passes over the training images. None with no `minutes`: 30."""
    minutes: float | None = None
    """Training time instead of `epochs`. How far it gets depends on the machine."""
    batch_size: int = 128
    learning_rate: float = 2e-3
    """Peak of AdamW's rate: linear warm-up, then cosine to 2 % of it at the end of the run."""
    warmup_steps: int = 200
    weight_decay: float = 1e-4
    beta: float = 1.0
    """Weight of the rate in the loss. 1 is the evidence lower bound."""
    kl_warmup_epochs: float = 0.0
    """Epochs over which the rate's weight rises from 0 to `beta`."""
    free_bits: float = 0.0
    """Nats of rate per latent dimension, as a mean over the batch, below which it is not lowered further."""
    importance_samples: int = 1
    """Posterior draws of the importance-weighted bound. 1 is the evidence lower bound."""
    terms: Literal["both", "distortion", "rate"] = "both"
    """Which terms of the bound are trained. One alone shows what the other is for."""
    adversarial_loss: Literal["non-saturating", "minimax"] = "non-saturating"
    """How decoder and discriminator play. `minimax` is that of Larsen et al. 2016."""
    adversarial_weight: float = 0.5
    """Weight of the adversarial gradient beside the reconstruction's: 1 / gamma of Larsen et al. 2016."""
    adaptive_weight: bool = True
    """Scale the adversarial gradient to the reconstruction's size at the decoder's last layer first."""
    adversarial_start: float = 0.1
    """Share of the run before the decoder gets the adversarial gradient; the discriminator learns at once."""
    discriminator_width: int = 32
    """Channels of the discriminator after the first halving."""
    gan_share: float = 0.3
    """Share of the run that trains the GAN whose discriminator then measures the reconstruction."""
    ema_decay: float = 0.999
    """Decay of the averaged weights that are evaluated and exported. 0: the last weights."""
    early_stop_epochs: int | None = None
    """Stop after so many epochs without a better ELBO of the validation images, a tenth of the training
    images; the best weights are kept. None: train to the end, on all training images."""
    max_gradient_norm: float = 200.0
    seed: int = 0
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 on a device with bf16 instructions, else fp32. Likelihood and rate are always float32."""

    threads: int | None = None
    """CPU threads of each process. None: the available CPUs, divided by the processes on this machine."""
    compile: bool = False
    """Compile networks and loss with torch.compile: up to a minute at the start, faster steps after."""
    cuda_graph: bool = True
    """Replay steps as CUDA graphs, on one GPU: one launch in place of some hundred."""
    tensorboard: bool = True
    """Write TensorBoard's files into the run folder."""

    def __post_init__(self) -> None:
        if not self.dataset:
            raise self._bad("dataset", "is empty: name a data set, or the path of a folder or file")
        if self.image_size is not None:
            check_side("image_size", *self.image_size)
        if self.epochs is not None and self.minutes is not None:
            raise BadSetting(
                self._set("epochs"), " and ", self._set("minutes"), " are both set: give one of them"
            )
        if self.objective not in OBJECTIVES:
            raise self._bad("objective", f"is {self.objective!r}: give one of {', '.join(OBJECTIVES)}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise self._bad("device", f"is {self.device!r}: use auto, cpu, cuda or cuda:N")
        for name, hint in get_type_hints(Config).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                raise self._bad(name, f"is {getattr(self, name)!r}: give one of {', '.join(get_args(hint))}")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise self._bad(name, f"is {value}: it must be within {low:g} to {high:g}")
        self._check_objective()

    def _check_objective(self) -> None:
        """Refuse what the objective does not use, and what does not go together."""
        users_of = settings_by_user()
        for field in dataclasses.fields(Config):
            users = users_of.get(field.name)
            if users and self.objective not in users and getattr(self, field.name) != field.default:
                raise BadSetting(
                    self._set(field.name),
                    " is not used by ",
                    self._set("objective"),
                    f": it belongs to {', '.join(users)}",
                )
        for name, value in OBJECTIVES[self.objective].needs.items():
            if getattr(self, name) != value:
                raise self._needs("objective", name, value)
        if self.binarize == "dynamic" and self.likelihood != "bernoulli":
            raise self._needs("binarize", "likelihood", "bernoulli")
        if self.sigma is not None and self.likelihood != "gaussian":
            raise self._needs("sigma", "likelihood", "gaussian")
        weights = ("beta", "kl_warmup_epochs", "free_bits")
        if self.importance_samples > 1:
            self._refuse((*weights, "terms"), "importance_samples", ", whose bound has no such part")
        if self.terms == "distortion":
            self._refuse(weights, "terms", ", which trains no rate")

    def _refuse(self, names: tuple[str, ...], other: str, reason: str) -> None:
        """Refuse the first of these settings that is not at its default, which `other` has no use for."""
        for name in names:
            if getattr(self, name) != getattr(_DEFAULTS, name):
                raise BadSetting(self._set(name), " does not go with ", self._set(other), reason)

    def _set(self, name: str) -> Setting:
        return Setting(name, getattr(self, name))

    def _bad(self, name: str, text: str) -> BadSetting:
        return BadSetting(self._set(name), f" {text}")

    def _needs(self, name: str, other: str, value: str) -> BadSetting:
        return BadSetting(self._set(name), f" needs {other}={value}, not ", self._set(other))

    @property
    def is_adversarial(self) -> bool:
        """Whether a discriminator takes part."""
        return "discriminator_width" in OBJECTIVES[self.objective].settings

    @property
    def total_epochs(self) -> int | None:
        """Epochs to train, or None where `minutes` decides."""
        return None if self.minutes is not None else self.epochs or DEFAULT_EPOCHS


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("train_images", 2, 1e9),
    ("latent_dim", 1, 65536),
    ("width", 1, 1024),
    # At 8 pixels, the least, there would be no convolution.
    ("last_side", 1, 7),
    ("blocks", 0, 16),
    ("hidden", 0, 65536),
    ("epochs", 1, 1e6),
    ("minutes", 0.001, 1e6),
    ("batch_size", 1, 65536),
    ("learning_rate", 1e-9, 10.0),
    ("warmup_steps", 0, 1e6),
    ("weight_decay", 0.0, 10.0),
    ("beta", 0.0, 1e4),
    ("kl_warmup_epochs", 0.0, 1e6),
    ("free_bits", 0.0, 100.0),
    ("importance_samples", 1, 1000),
    ("sigma", 1e-4, 10.0),
    ("adversarial_weight", 0.0, 1e6),
    ("adversarial_start", 0.0, 1.0),
    ("discriminator_width", 1, 1024),
    ("gan_share", 0.01, 0.99),
    ("early_stop_epochs", 1, 1e6),
    ("ema_decay", 0.0, 0.999999),
    ("max_gradient_norm", 1e-6, 1e12),
    ("seed", 0, 2**53 - 1),
    ("threads", 1, 1024),
)


_DEFAULTS: Any = types.SimpleNamespace(**{field.name: field.default for field in dataclasses.fields(Config)})


def check_side(name: str, height: int, width: int) -> None:
    """Raise `BadConfig` unless both sides are within 8 to 256 pixels."""
    if not (MIN_SIDE <= height <= MAX_SIDE and MIN_SIDE <= width <= MAX_SIDE):
        text = f" is {height}x{width}: each side must be {MIN_SIDE} to {MAX_SIDE} pixels"
        raise BadSetting(Setting(name, (height, width)), text)


def parse_image_size(text: str, *, name: str = "image_size") -> tuple[int, int]:
    """Return (height, width) of `H` or `HxW`; messages call it `name`.

    Raises:
        BadConfig: The text is neither, or a side is out of range.
    """
    match = re.fullmatch(r"(\d{1,9})(?:[xX](\d{1,9}))?", text.strip(), flags=re.ASCII)
    if not match:
        raise BadSetting(Setting(name, text), f" is {text!r}: give H or HxW in pixels, such as 64 or 28x20")
    height, width = int(match[1]), int(match[2] or match[1])
    check_side(name, height, width)
    return height, width


def config_from(*layers: Mapping[str, Any] | Layer) -> Config:
    """Build a `Config` of several mappings, later ones winning; a value of None is "not given".

    `epochs` of a later layer replaces `minutes` of an earlier one, and the reverse.

    Raises:
        BadConfig: A key is unknown, a value has the wrong type or is out of range, or `dataset` is missing;
            the message says which layer the value comes from.
    """
    hints = get_type_hints(Config)
    merged: dict[str, Any] = {}
    origins: dict[str, Layer] = {}
    try:
        for layer in layers:
            laid = layer if isinstance(layer, Layer) else Layer(layer)
            given = {name: value for name, value in laid.values.items() if value is not None}
            if "epochs" in given or "minutes" in given:
                merged.pop("epochs", None)
                merged.pop("minutes", None)
            for name, value in given.items():
                origins[name] = laid
                if name not in hints:
                    raise _unknown(name, value)
                merged[name] = _convert(name, hints[name], value)
        if "dataset" not in merged:
            raise BadConfig(
                "dataset is not set: --dataset names a data set (such as digits), a folder or a file"
            )
        row = OBJECTIVES.get(merged.get("objective", ""))
        return Config(**({**row.defaults, **merged} if row else merged))
    except BadSetting as error:
        raise error.located(origins, vars(_DEFAULTS)) from None


def _unknown(name: str, value: Any) -> BadSetting:
    if isinstance(value, dict):
        hint = "settings stand at the top of the file, in no table"
    elif near := difflib.get_close_matches(name, get_type_hints(Config), n=1, cutoff=0.5):
        hint = f"did you mean {near[0]}?"
    else:
        hint = "docs/training/settings.md lists them"
    return BadSetting(Setting(name, value), f" is no setting: {hint}")


def _convert(name: str, hint: Any, value: Any) -> Any:
    """Check one value of TOML, JSON or a flag against the field's type."""
    if name == "image_size":
        return _image_size(value)
    accepted = get_args(hint) if get_origin(hint) in (types.UnionType, Union) else (hint,)
    if get_origin(hint) is Literal:
        accepted = (str,)
    if float in accepted and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            text = f" is out of range: it has {len(str(value))} digits"
            raise BadSetting(Setting(name, value), text) from None
    if type(value) not in accepted:
        kind = " or ".join(t.__name__ for t in accepted if t is not types.NoneType)
        raise BadSetting(Setting(name, value), f" is {value!r}: it must be of type {kind}")
    return value


def _image_size(value: Any) -> tuple[int, int]:
    if isinstance(value, list | tuple) and len(value) == 2 and all(type(side) is int for side in value):
        return value[0], value[1]
    if isinstance(value, str) or type(value) is int:
        return parse_image_size(str(value))
    raise BadSetting(Setting("image_size", value), f' is {value!r}: give a side, "HxW" or [height, width]')


def to_json_object(config: Config) -> dict[str, Any]:
    """Return the settings as JSON types; `config_from` reads them back."""
    values = dataclasses.asdict(config)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
