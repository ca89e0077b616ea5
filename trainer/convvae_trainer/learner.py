"""What is learned and how one step changes it: networks, optimiser, averaged weights, random state."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from convvae_trainer.config import Config
from convvae_trainer.errors import BadRun
from convvae_trainer.likelihood import make_likelihood
from convvae_trainer.model import ConvVAE
from convvae_trainer.objective import elbo_terms, trainable

__all__ = ["TOTALS", "Learner"]

# What a step adds to the running totals, which stay on the device until somebody looks.
TOTALS = ("steps", "distortion", "rate", "gradient_norm", "skipped")
BETAS = (0.9, 0.99)
# The likelihood's own parameters learn faster than the networks. With the networks' rate sigma was 2.7
# times the error after 30 epochs of `digits`, and the test ELBO 655 nats instead of 1498: too wide a sigma
# loses at once, and excuses errors. Ten times the rate ends where thirty does, but is behind in short runs.
LIKELIHOOD_RATE = 30.0


class Learner:
    """Networks and likelihood of one run, and everything that a step changes.

    Args:
        config: The run's settings.
        shape: (height, width, channels) of the images.
        device: Where to compute.
        autocast: Type in which the networks compute; None for float32.
    """

    def __init__(
        self,
        config: Config,
        *,
        shape: tuple[int, int, int],
        device: torch.device,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.config = config
        self.device = device
        self.autocast = autocast
        height, width, channels = shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = ConvVAE(config, height=height, width=width, channels=channels).to(device)
            self.likelihood = make_likelihood(config.likelihood).to(device)
        self._named = dict(trainable(self.model, self.likelihood).named_parameters())
        self._parameters = list(self._named.values())
        self._average = [parameter.detach().clone() for parameter in self._parameters]
        self._rates = [1.0]
        groups: list[dict[str, Any]] = [{"params": list(self.model.parameters())}]
        if own := list(self.likelihood.parameters()):
            # No decay: it would pull sigma towards 1.
            groups.append({"params": own, "weight_decay": 0.0})
            self._rates.append(LIKELIHOOD_RATE)
        self.optimizer = torch.optim.AdamW(
            groups, lr=config.learning_rate, betas=BETAS, weight_decay=config.weight_decay, fused=True
        )
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.totals = torch.zeros(len(TOTALS), device=device)
        self._skipped = torch.tensor([float(name == "skipped") for name in TOTALS], device=device)
        self.num_steps = 0

    def step(self, image_BCHW: Tensor, *, learning_rate: float, beta: float) -> None:
        """Take one step on a batch of uint8 images; one whose loss or gradient is not finite changes nothing.

        Nothing is fetched from the device.
        """
        x_BCHW, noise_BZ = self._draw(image_BCHW)
        terms = elbo_terms(self.model, self.likelihood, x_BCHW, noise_BZ, autocast=self.autocast)
        loss = terms.loss(beta)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self.config.max_gradient_norm)
        finite = torch.isfinite(norm) & torch.isfinite(loss.detach())
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = learning_rate * rate
        # Where this is 1 the fused kernel leaves everything as it was: no look at the device is needed.
        self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self._follow()
        one = torch.ones_like(norm)
        seen = torch.stack((one, terms.distortion.mean(), terms.rate.mean(), norm, one)).detach()
        self.totals += torch.where(finite, seen * (1 - self._skipped), self._skipped)
        self.num_steps += 1

    def trial(self, image_BCHW: Tensor, autocast: torch.dtype | None) -> None:
        """Do the work of a step and change nothing but the gradients."""
        state = self.generator.get_state()
        x_BCHW, noise_BZ = self._draw(image_BCHW)
        self.generator.set_state(state)
        loss = elbo_terms(self.model, self.likelihood, x_BCHW, noise_BZ, autocast=autocast).loss(1.0)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]

    def _draw(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the batch as float32 in 0..1, binarised if the run is, and posterior noise."""
        x_BCHW = image_BCHW.float() / 255
        if self.config.binarize == "dynamic":
            level_BCHW = torch.rand(x_BCHW.shape, generator=self.generator, device=self.device)
            x_BCHW = (level_BCHW < x_BCHW).float()
        noise_BZ = torch.randn(
            (len(x_BCHW), self.config.latent_dim), generator=self.generator, device=self.device
        )
        return x_BCHW, noise_BZ

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the averaged weights towards the present ones, faster in the first steps."""
        decay = min(self.config.ema_decay, (1 + self.num_steps) / (10 + self.num_steps))
        torch._foreach_lerp_(self._average, list[Tensor](self._parameters), 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Use the averaged weights, in evaluation mode, for as long as the context lasts."""
        if not self.config.ema_decay:
            yield
            return
        kept = [parameter.detach().clone() for parameter in self._parameters]
        try:
            self._load(self._average)
            yield
        finally:
            self._load(kept)

    @torch.no_grad()
    def _load(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that a checkpoint has to hold, by name."""
        held = {"generator": self.generator.get_state(), "totals": self.totals}
        for (name, parameter), average in zip(self._named.items(), self._average, strict=True):
            held |= {f"weights.{name}": parameter, f"average.{name}": average}
            moments = self.optimizer.state.get(parameter, {})
            held |= {f"optimizer.{key}.{name}": value for key, value in moments.items()}
        return held

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], *, num_steps: int) -> None:
        """Take over what `tensors` returned.

        Raises:
            BadRun: Names or shapes are not those of this run's networks.
        """
        try:
            for (name, parameter), average in zip(self._named.items(), self._average, strict=True):
                parameter.copy_(tensors[f"weights.{name}"])
                average.copy_(tensors[f"average.{name}"])
                moments = {
                    key: tensors[f"optimizer.{key}.{name}"].to(self.device)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"optimizer.{key}.{name}" in tensors
                }
                if moments:
                    self.optimizer.state[parameter] = moments
            self.totals.copy_(tensors["totals"])
            # A generator's state fits its own kind of device only; elsewhere the stream starts anew.
            if tensors["generator"].shape == self.generator.get_state().shape:
                self.generator.set_state(tensors["generator"])
        except (KeyError, RuntimeError):
            raise BadRun(
                "the checkpoint does not fit the networks of its own settings: it is damaged"
            ) from None
        self.num_steps = num_steps
