"""What is learned and how one step changes it: networks, optimisers, averaged weights, random state."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convvae_trainer.compute.cuda_graph import GraphedStep
from convvae_trainer.compute.device import is_out_of_memory
from convvae_trainer.compute.distributed import SINGLE_PROCESS, DistContext
from convvae_trainer.errors import BadRun
from convvae_trainer.networks.conv_vae import ConvVAE
from convvae_trainer.networks.discriminator import Discriminator
from convvae_trainer.networks.likelihoods import make_likelihood
from convvae_trainer.objectives.adversarial import (
    FeatureLikelihood,
    GanContext,
    Gradients,
    gan_gradients,
    gradients_of,
    vae_disl_gradients,
    vae_gan_gradients,
)
from convvae_trainer.objectives.bound import Mean, Terms, elbo_terms, importance_weighted_bound, rate_loss
from convvae_trainer.settings.config import Config
from convvae_trainer.step.ema import EmaWeights
from convvae_trainer.step.metrics import StepMetrics
from convvae_trainer.step.optimizers import Optimizers

__all__ = ["TrainState"]


@dataclass(frozen=True, slots=True)
class _Compiled:
    """Encoder and decoder as they are called in adversarial steps."""

    encoder: Any
    decoder: Any


class TrainState:
    """Networks and likelihood of one run, and everything that a step changes.

    Args:
        config: The run's settings.
        shape: (height, width, channels) of the images.
        device: Where to compute.
        autocast: Type in which the networks compute; None for float32.
        dist: The processes that share each batch.
    """

    def __init__(
        self,
        config: Config,
        *,
        shape: tuple[int, int, int],
        device: torch.device,
        autocast: torch.dtype | None = None,
        dist: DistContext = SINGLE_PROCESS,
    ) -> None:
        self.config = config
        self.shape = shape
        self.device = device
        self.autocast = autocast
        self.dist = dist
        height, width, channels = shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = ConvVAE(config, height=height, width=width, channels=channels).to(device)
            self.likelihood = make_likelihood(config.likelihood, sigma=config.sigma).to(device)
            held: dict[str, nn.Module] = {"model": self.model, "likelihood": self.likelihood}
            if config.is_adversarial:
                self.features = FeatureLikelihood().to(device)
                self.discriminator = Discriminator(
                    height=height, width=width, channels=channels, base=config.discriminator_width
                ).to(device)
                held |= {"features": self.features, "discriminator": self.discriminator}
        # As the matrix units of a GPU read images: 7 % of a step in bf16 on an H200. On CPUs it is a loss.
        self.is_channels_last = device.type == "cuda" and autocast is not None
        if self.is_channels_last:
            nn.ModuleDict(held).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._named = {
            name: parameter
            for name, parameter in nn.ModuleDict(held).named_parameters()
            if parameter.requires_grad
        }
        # Encoder, decoder and likelihood are what is evaluated and exported.
        exported = {n: p for n, p in self._named.items() if n.startswith(("model.", "likelihood."))}
        self.ema = EmaWeights(exported, decay=config.ema_decay)
        self._parameters = self._by_network(held)
        self.optimizers = Optimizers(config, self._parameters, device=device)
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self._beta = torch.ones((), device=device)
        self._work: tuple[bool, Callable[[Tensor], object]] | None = None
        self.step_metrics = StepMetrics(
            latent_dim=config.latent_dim,
            device=device,
            has_rate=config.objective != "ae",
            has_discriminator=config.is_adversarial,
            has_phases=config.objective == "vae-disl",
        )
        self._compile()
        self.num_steps = 0

    def _by_network(self, held: dict[str, nn.Module]) -> dict[str, list[nn.Parameter]]:
        modules = {"encoder": self.model.encoder, "decoder": self.model.decoder} | held
        del modules["model"]
        return {name: [p for p in module.parameters() if p.requires_grad] for name, module in modules.items()}

    def _compile(self) -> None:
        """Have what steps call compiled at its first call, if the run asks for it, and nothing else.

        Of a bound that is all of the loss; of two players their networks.
        """
        made: Callable[[Any], Any] = torch.compile if self.config.compile else _as_it_is
        self._add_up = made(self.step_metrics.add)
        self._mean: Mean = self.dist.mean_
        if self.config.compile and self.dist.size > 1:
            # Compiled code would hold the group, and know nothing of errors in words.
            self._mean = torch.compiler.disable(self.dist.mean_)  # type: ignore[no-untyped-call]
        if not self.config.is_adversarial:
            self._bound_loss = made(self._plain_bound_loss)
            return
        self._running = _Compiled(encoder=made(self.model.encoder), decoder=made(self.model.decoder))
        self._judging = made(self.discriminator)

    def step(self, image_BCHW: Tensor, *, learning_rate: float, beta: float, fraction: float = 0.0) -> None:
        """Take one step on a batch of uint8 images; one whose loss or gradient is not finite changes nothing.

        Nothing is fetched from the device.

        Args:
            image_BCHW: This process's rows of the batch.
            learning_rate: Of the networks.
            beta: Weight of the rate.
            fraction: How much of the run is done, 0 to 1.
        """
        self.optimizers.set_rate(learning_rate)
        self._beta.fill_(beta)
        self._work_of(self._is_later_phase(fraction))(image_BCHW)
        self.ema.update(self.num_steps)
        self.num_steps += 1

    def _is_later_phase(self, fraction: float) -> bool:
        """Whether so much of the run is done that a VAE/GAN's decoder plays, or VAE_Dis_l encodes."""
        starts = {"vae-gan": self.config.adversarial_start, "vae-disl": self.config.gan_share}
        return fraction >= starts.get(self.config.objective, 0.0)

    def _work_of(self, is_later: bool) -> Callable[[Tensor], object]:
        """Return a step's work in a phase: graphed, where it can be. What the other phase had is freed."""
        if self._work is None or self._work[0] != is_later:
            change = functools.partial(self._change, is_later=is_later)
            self._work = is_later, GraphedStep(change, self.generator) if self.is_graphed else change
        return self._work[1]

    @property
    def is_graphed(self) -> bool:
        """Whether steps are replayed as CUDA graphs: on a GPU of its own, unless the run says not."""
        return self.config.cuda_graph and self.device.type == "cuda" and self.dist.size == 1

    def _change(self, image_BCHW: Tensor, *, is_later: bool) -> None:
        """Do what a step does, but for what Python counts."""
        found = self._gradients(image_BCHW, is_later=is_later)
        finite, norm = self.optimizers.apply(found)
        self._add_up(found, finite=finite, gradient_norm=norm)

    def _gradients(self, image_BCHW: Tensor, *, is_later: bool) -> Gradients:
        config = self.config
        x_BCHW, noise = self._draw(image_BCHW)
        if not config.is_adversarial:
            return self._bound_gradients(x_BCHW, noise)
        prior_BZ = self._normal(len(x_BCHW), config.latent_dim)
        parts = GanContext(
            model=self._running,
            discriminator=self._judging,
            likelihood=self.likelihood,
            features=self.features,
            parameters=self._parameters,
            loss=config.adversarial_loss,
            adversarial_weight=config.adversarial_weight,
            adaptive_weight=config.adaptive_weight,
            autocast=self.autocast,
            mean=self.dist.mean_,
        )
        if config.objective == "vae-gan":
            return vae_gan_gradients(
                parts,
                x_BCHW,
                noise,
                prior_BZ,
                beta=self._beta,
                free_bits=config.free_bits,
                is_played=is_later,
            )
        if not is_later:
            return gan_gradients(parts, x_BCHW, prior_BZ)
        return vae_disl_gradients(parts, x_BCHW, noise, beta=self._beta, free_bits=config.free_bits)

    def _bound_gradients(self, x_BCHW: Tensor, noise: Tensor) -> Gradients:
        loss, terms = self._bound_loss(x_BCHW, noise)
        names = ("encoder", "decoder", "likelihood")
        found = gradients_of(loss, *(self._parameters[name] for name in names))
        loss = loss.detach()
        self.dist.mean_([*(gradient for some in found for gradient in some), loss])
        return Gradients(of=dict(zip(names, found, strict=True)), loss=loss, terms=terms)

    def _plain_bound_loss(self, x_BCHW: Tensor, noise: Tensor) -> tuple[Tensor, Terms]:
        """Return the distortion alone, the bound, or the importance-weighted one, negative; and the terms."""
        config, likelihood = self.config, self.likelihood
        if config.importance_samples > 1:
            bound_B, terms = importance_weighted_bound(
                self.model, likelihood, x_BCHW, noise, autocast=self.autocast
            )
            return -bound_B.mean(), terms
        terms = elbo_terms(self.model, likelihood, x_BCHW, noise, autocast=self.autocast)
        distortion = terms.distortion.mean()
        if config.objective == "ae" or config.terms == "distortion":
            return distortion, terms
        rate = rate_loss(terms, beta=self._beta, free_bits=config.free_bits, mean=self._mean)
        return rate if config.terms == "rate" else distortion + rate, terms

    def end_steps(self) -> None:
        """Free what was graphed of steps; another step records anew."""
        self._work = None

    def _draw(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows as float32 in 0..1, binarised if the run is, and their posterior noise."""
        x_BCHW = image_BCHW.float() / 255
        count, config = len(x_BCHW), self.config
        if config.binarize == "dynamic":
            shape = (count * self.dist.size, *x_BCHW.shape[1:])
            level_BCHW = torch.rand(shape, generator=self.generator, device=self.device)
            x_BCHW = (self.dist.rows(level_BCHW) < x_BCHW).float()
        samples = () if config.importance_samples == 1 else (config.importance_samples,)
        return x_BCHW, self._normal(count, *samples, config.latent_dim)

    def _normal(self, count: int, *shape: int) -> Tensor:
        """Return this process's rows of the whole batch's standard normal draws."""
        drawn = torch.randn((count * self.dist.size, *shape), generator=self.generator, device=self.device)
        return self.dist.rows(drawn)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that a checkpoint has to hold, by name."""
        held = {"generator": self.generator.get_state(), **self.step_metrics.tensors(), **self.ema.tensors()}
        moments = self.optimizers.moments()
        for name, parameter in self._named.items():
            held[f"weights.{name}"] = parameter
            held |= {f"optimizer.{key}.{name}": value for key, value in moments.get(parameter, {}).items()}
        return held

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], *, num_steps: int) -> None:
        """Take over what `tensors` returned.

        Raises:
            BadRun: Names or shapes are not those of this run's networks.
        """
        try:
            for name, parameter in self._named.items():
                parameter.copy_(tensors[f"weights.{name}"])
                moments = {
                    key: tensors[f"optimizer.{key}.{name}"].to(self.device)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"optimizer.{key}.{name}" in tensors
                }
                if moments:
                    self.optimizers.restore(parameter, moments)
            self.ema.restore(tensors)
            self.step_metrics.restore(tensors)
            # A generator's state fits its own kind of device only; elsewhere the stream starts anew.
            if tensors["generator"].shape == self.generator.get_state().shape:
                self.generator.set_state(tensors["generator"])
        except (KeyError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise BadRun(
                "the checkpoint does not fit the networks of its own settings: it is damaged"
            ) from None
        self.num_steps = num_steps
        # What was graphed changes the moments that were here before.
        self._work = None


def _as_it_is(called: Any) -> Any:
    return called
