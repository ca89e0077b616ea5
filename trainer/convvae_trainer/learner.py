"""What is learned and how one step changes it: networks, optimisers, averaged weights, random state."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convvae_trainer.adversarial import (
    FeatureLikelihood,
    Gradients,
    Parts,
    gan_gradients,
    gradients_of,
    vae_disl_gradients,
    vae_gan_gradients,
)
from convvae_trainer.average import AveragedWeights
from convvae_trainer.config import Config
from convvae_trainer.discriminator import Discriminator
from convvae_trainer.distributed import ALONE, World
from convvae_trainer.errors import BadRun
from convvae_trainer.likelihood import make_likelihood
from convvae_trainer.model import ConvVAE
from convvae_trainer.objective import elbo_terms, importance_weighted_bound, rate_loss
from convvae_trainer.totals import Totals

__all__ = ["Learner"]

BETAS = (0.9, 0.99)
# Momentum makes two players circle (Radford et al. 2015, section 4).
ADVERSARIAL_BETAS = (0.5, 0.99)
# The likelihood's own parameters learn faster than the networks. With the networks' rate sigma was 2.7
# times the error after 30 epochs of `digits`, and the test ELBO 655 nats instead of 1498: too wide a sigma
# loses at once, and excuses errors. Ten times the rate ends where thirty does, but is behind in short runs.
LIKELIHOOD_RATE = 30.0
_SCALES = ("likelihood", "features")


@dataclass(frozen=True, slots=True)
class _Compiled:
    """Encoder and decoder as they are called in training."""

    encoder: Any
    decoder: Any


class Learner:
    """Networks and likelihood of one run, and everything that a step changes.

    Args:
        config: The run's settings.
        shape: (height, width, channels) of the images.
        device: Where to compute.
        autocast: Type in which the networks compute; None for float32.
        world: The processes that share each batch.
    """

    def __init__(
        self,
        config: Config,
        *,
        shape: tuple[int, int, int],
        device: torch.device,
        autocast: torch.dtype | None = None,
        world: World = ALONE,
    ) -> None:
        self.config = config
        self.shape = shape
        self.device = device
        self.autocast = autocast
        self.world = world
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
        self._named = {
            name: parameter
            for name, parameter in nn.ModuleDict(held).named_parameters()
            if parameter.requires_grad
        }
        # Encoder, decoder and likelihood are what is evaluated and exported.
        exported = {n: p for n, p in self._named.items() if n.startswith(("model.", "likelihood."))}
        self.average = AveragedWeights(exported, decay=config.ema_decay)
        self._parameters = self._by_network(held)
        self.optimizers = self._make_optimizers()
        self._compile()
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.totals = Totals(
            latent_dim=config.latent_dim,
            device=device,
            has_rate=config.objective != "ae",
            has_discriminator=config.is_adversarial,
            has_phases=config.objective == "vae-disl",
        )
        self.num_steps = 0

    def _by_network(self, held: dict[str, nn.Module]) -> dict[str, list[nn.Parameter]]:
        modules = {"encoder": self.model.encoder, "decoder": self.model.decoder} | held
        del modules["model"]
        return {name: [p for p in module.parameters() if p.requires_grad] for name, module in modules.items()}

    def _make_optimizers(self) -> dict[str, torch.optim.AdamW]:
        """Return one optimiser for a bound; for two players one each, since either may sit a step out."""
        teams: dict[str, tuple[str, ...]] = {"model": ("encoder", "decoder", "likelihood")}
        if self.config.is_adversarial:
            teams = {
                "encoder": ("encoder", "likelihood", "features"),
                "decoder": ("decoder",),
                "discriminator": ("discriminator",),
            }
        return {
            name: torch.optim.AdamW(
                [self._group(network) for network in team if self._parameters[network]],
                lr=self.config.learning_rate,
                fused=True,
            )
            for name, team in teams.items()
        }

    def _group(self, network: str) -> dict[str, Any]:
        plays = self.config.is_adversarial and network in ("decoder", "discriminator")
        is_scale = network in _SCALES
        return {
            "params": self._parameters[network],
            "network": network,
            "times": LIKELIHOOD_RATE if is_scale else 1.0,
            "betas": ADVERSARIAL_BETAS if plays else BETAS,
            # No decay of a scale: it would pull it towards 1.
            "weight_decay": 0.0 if is_scale else self.config.weight_decay,
        }

    def _compile(self) -> None:
        """Have the networks compiled at their first call, if the run asks for it; exported ones never are."""
        made: Callable[[nn.Module], Any] = torch.compile if self.config.compile else _as_it_is
        if self.config.compile:
            # A donated buffer is gone after one backward pass; two losses go back through one graph here.
            torch._functorch.config.donated_buffer = False
        self._running = _Compiled(encoder=made(self.model.encoder), decoder=made(self.model.decoder))
        if self.config.is_adversarial:
            # A penalty on slopes is differentiated twice, which compiled code is not.
            judging = _as_it_is if self.config.gradient_penalty else made
            self._judging = judging(self.discriminator)

    def step(self, image_BCHW: Tensor, *, learning_rate: float, beta: float, fraction: float = 0.0) -> None:
        """Take one step on a batch of uint8 images; one whose loss or gradient is not finite changes nothing.

        Nothing is fetched from the device.

        Args:
            image_BCHW: This process's rows of the batch.
            learning_rate: Of the networks.
            beta: Weight of the rate.
            fraction: How much of the run is done, 0 to 1.
        """
        found = self._gradients(image_BCHW, self.autocast, beta=beta, fraction=fraction)
        finite = torch.isfinite(found.loss)
        norms = {}
        for name, optimizer in self.optimizers.items():
            norms[name] = self._hand_over(optimizer, found)
            finite = finite & torch.isfinite(norms[name])
        for name, optimizer in self.optimizers.items():
            if not any(group["network"] in found.of for group in optimizer.param_groups):
                continue
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * group["times"]
            skip = ~finite | found.skip[name] if name in found.skip else ~finite
            # Where this is 1 the fused kernel leaves everything as it was: no look at the device is needed.
            optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
            optimizer.step()
        self.average.follow(self.num_steps)
        self.totals.add(found, finite=finite, gradient_norm=torch.stack(list(norms.values())).norm())
        self.num_steps += 1

    def _hand_over(self, optimizer: torch.optim.AdamW, found: Gradients) -> Tensor:
        """Give an optimiser's parameters their gradients, clipped; return the norm before."""
        parameters: list[nn.Parameter] = []
        for group in optimizer.param_groups:
            gradients = found.of.get(group["network"], (None,) * len(group["params"]))
            for parameter, gradient in zip(group["params"], gradients, strict=True):
                parameter.grad = gradient
            parameters += group["params"]
        if all(parameter.grad is None for parameter in parameters):
            # Clipping nothing makes a zero on the host, and moving it would wait for the device.
            return torch.zeros((), device=self.device)
        # Networks and scales together. Sigma's gradient is 2,000 at first, so theirs is small for some steps:
        # AdamW makes up for that. Clipped apart, the test ELBO of `digits` after 20 epochs was lower with 4
        # seeds of 5, by 46 nats in the mean of all 5.
        return torch.nn.utils.clip_grad_norm_(parameters, self.config.max_gradient_norm)

    def _gradients(
        self, image_BCHW: Tensor, autocast: torch.dtype | None, *, beta: float, fraction: float
    ) -> Gradients:
        config = self.config
        x_BCHW, noise = self._draw(image_BCHW)
        if not config.is_adversarial:
            return self._bound_gradients(x_BCHW, noise, autocast, beta=beta)
        prior_BZ = self._normal(len(x_BCHW), config.latent_dim)
        parts = Parts(
            model=self._running,
            discriminator=self._judging,
            likelihood=self.likelihood,
            features=self.features,
            parameters=self._parameters,
            loss=config.adversarial_loss,
            adversarial_weight=config.adversarial_weight,
            adaptive_weight=config.adaptive_weight,
            equilibrium_margin=config.equilibrium_margin,
            gradient_penalty=config.gradient_penalty,
            autocast=autocast,
            mean=self.world.mean_,
        )
        if config.objective == "vae-gan":
            is_played = fraction >= config.adversarial_start
            return vae_gan_gradients(
                parts, x_BCHW, noise, prior_BZ, beta=beta, free_bits=config.free_bits, is_played=is_played
            )
        if fraction < config.gan_share:
            return gan_gradients(parts, x_BCHW, prior_BZ)
        return vae_disl_gradients(parts, x_BCHW, noise, beta=beta, free_bits=config.free_bits)

    def _bound_gradients(
        self, x_BCHW: Tensor, noise: Tensor, autocast: torch.dtype | None, *, beta: float
    ) -> Gradients:
        """Return the gradients of the distortion alone, of the bound, or of the importance-weighted one."""
        config = self.config
        if config.importance_samples > 1:
            bound_B, terms = importance_weighted_bound(
                self._running, self.likelihood, x_BCHW, noise, autocast=autocast
            )
            loss = -bound_B.mean()
        else:
            terms = elbo_terms(self._running, self.likelihood, x_BCHW, noise, autocast=autocast)
            distortion = terms.distortion.mean()
            if config.objective == "ae" or config.terms == "distortion":
                loss = distortion
            else:
                rate = rate_loss(terms, beta=beta, free_bits=config.free_bits, mean=self.world.mean_)
                loss = rate if config.terms == "rate" else distortion + rate
        names = ("encoder", "decoder", "likelihood")
        found = gradients_of(loss, *(self._parameters[name] for name in names))
        loss = loss.detach()
        self.world.mean_([*(gradient for some in found for gradient in some), loss])
        return Gradients(of=dict(zip(names, found, strict=True)), loss=loss, terms=terms)

    def trial(self, image_BCHW: Tensor, autocast: torch.dtype | None) -> None:
        """Do the work of a step and change nothing."""
        state = self.generator.get_state()
        self._gradients(image_BCHW, autocast, beta=1.0, fraction=1.0)
        self.generator.set_state(state)

    def _draw(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows as float32 in 0..1, binarised if the run is, and their posterior noise."""
        x_BCHW = image_BCHW.float() / 255
        count, config = len(x_BCHW), self.config
        if config.binarize == "dynamic":
            shape = (count * self.world.size, *x_BCHW.shape[1:])
            level_BCHW = torch.rand(shape, generator=self.generator, device=self.device)
            x_BCHW = (self.world.rows(level_BCHW) < x_BCHW).float()
        samples = () if config.importance_samples == 1 else (config.importance_samples,)
        return x_BCHW, self._normal(count, *samples, config.latent_dim)

    def _normal(self, count: int, *shape: int) -> Tensor:
        """Return this process's rows of the whole batch's standard normal draws."""
        drawn = torch.randn((count * self.world.size, *shape), generator=self.generator, device=self.device)
        return self.world.rows(drawn)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that a checkpoint has to hold, by name."""
        held = {"generator": self.generator.get_state(), **self.totals.tensors(), **self.average.tensors()}
        moments = {p: state for optimizer in self.optimizers.values() for p, state in optimizer.state.items()}
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
            owners = {
                p: o for o in self.optimizers.values() for group in o.param_groups for p in group["params"]
            }
            for name, parameter in self._named.items():
                parameter.copy_(tensors[f"weights.{name}"])
                moments = {
                    key: tensors[f"optimizer.{key}.{name}"].to(self.device)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"optimizer.{key}.{name}" in tensors
                }
                if moments:
                    owners[parameter].state[parameter] = moments
            self.average.restore(tensors)
            self.totals.restore(tensors)
            # A generator's state fits its own kind of device only; elsewhere the stream starts anew.
            if tensors["generator"].shape == self.generator.get_state().shape:
                self.generator.set_state(tensors["generator"])
        except (KeyError, RuntimeError):
            raise BadRun(
                "the checkpoint does not fit the networks of its own settings: it is damaged"
            ) from None
        self.num_steps = num_steps


def _as_it_is(module: nn.Module) -> nn.Module:
    return module
