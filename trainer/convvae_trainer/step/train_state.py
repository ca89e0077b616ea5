"""The state of a run, and the step that changes it: networks, optimisers, averaged weights, random numbers.

B = batch, C = channels, H and W = height and width.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from convvae_trainer.compute.cuda_graph import GraphedStep
from convvae_trainer.compute.device import is_out_of_memory
from convvae_trainer.compute.distributed import SINGLE_PROCESS, DistContext
from convvae_trainer.errors import BadConfig, BadRun
from convvae_trainer.networks.conv_vae import ConvVAE
from convvae_trainer.networks.likelihoods import make_likelihood
from convvae_trainer.objectives.base import Gradients, StepSetup
from convvae_trainer.objectives.noise import NoiseSource
from convvae_trainer.objectives.registry import objective_class
from convvae_trainer.settings.config import Config
from convvae_trainer.step.ema import EmaWeights
from convvae_trainer.step.metrics import StepMetrics
from convvae_trainer.step.optimizers import Optimizers

__all__ = ["TrainState"]


class TrainState:
    """The networks, likelihood and objective of one run, and everything else that a step changes.

    Args:
        config: The run's settings.
        shape: (height, width, channels) of the images.
        device: Where to compute.
        autocast: dtype in which the networks compute; None for float32.
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
        kind = objective_class(config.objective)
        setup = StepSetup(device=device, autocast=autocast, compile=self._compile, average=_average(dist))
        # The first weights depend on the run's seed alone.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = ConvVAE(
                config, height=height, width=width, channels=channels, is_point=not kind.has_rate
            ).to(device)
            self.likelihood = make_likelihood(config.likelihood, sigma=config.sigma).to(device)
            self.objective = kind(config, self.model, self.likelihood, shape=shape, setup=setup)
        modules = nn.ModuleDict(
            {"model": self.model, "likelihood": self.likelihood, **self.objective.extra_networks()}
        )
        # The matrix units of a GPU read bf16 images channels last: 7 % of a step on an H200. CPUs are slower.
        self.is_channels_last = device.type == "cuda" and autocast is not None
        if self.is_channels_last:
            modules.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._parameters = {name: p for name, p in modules.named_parameters() if p.requires_grad}
        # Only these are evaluated and exported.
        exported = {n: p for n, p in self._parameters.items() if n.startswith(("model.", "likelihood."))}
        self.ema = EmaWeights(exported, decay=config.ema_decay)
        self.optimizers = Optimizers(
            self.objective.optimizers,
            self.objective.parameters,
            weight_decay=config.weight_decay,
            max_norm=config.max_gradient_norm,
            device=device,
        )
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.noise = NoiseSource(self.generator, dist)
        self.step_metrics = StepMetrics(
            latent_dim=config.latent_dim,
            device=device,
            has_rate=kind.has_rate,
            figures=kind.figures,
        )
        self.num_steps = 0
        self._add_metrics = self._compile(self.step_metrics.add)
        # A tensor, because a CUDA graph would keep a Python number for ever.
        self._beta = torch.ones((), device=device)
        # The CUDA graph of the current phase, by whether that is the later one; empty between runs.
        self._graphs: dict[bool, GraphedStep] = {}

    def _compile(self, called: Any) -> Any:
        """Return the compiled form of a module or function if the run compiles; else itself."""
        return torch.compile(called) if self.config.compile else called

    def step(self, image_BCHW: Tensor, *, learning_rate: float, beta: float, fraction: float = 0.0) -> None:
        """Take one step. If its loss or a gradient is not finite, no weight changes.

        Nothing is fetched from the device.

        Args:
            image_BCHW: uint8 images: the rows of this process.
            learning_rate: Learning rate of the networks.
            beta: Weight of the rate.
            fraction: How much of the run is done, 0 to 1.
        """
        self.optimizers.set_rate(learning_rate)
        self._beta.fill_(beta)
        is_later_phase = fraction >= self.objective.later_phase_start(self.config)
        if self.is_graphed:
            self._graph(is_later_phase)(image_BCHW)
        else:
            self._update(image_BCHW, is_later_phase=is_later_phase)
        self.ema.update(self.num_steps)
        self.num_steps += 1

    @property
    def is_graphed(self) -> bool:
        """Whether steps are replayed as CUDA graphs: one process on a GPU, unless the run switches it off."""
        return self.config.cuda_graph and self.device.type == "cuda" and self.dist.size == 1

    def _graph(self, is_later_phase: bool) -> GraphedStep:
        """Return the CUDA graph of a phase's steps. The graph of the other phase is freed."""
        if is_later_phase not in self._graphs:
            update = functools.partial(self._update, is_later_phase=is_later_phase)
            self._graphs = {is_later_phase: GraphedStep(update, self.generator)}
        return self._graphs[is_later_phase]

    def free_graphs(self) -> None:
        """Free the CUDA graph of the steps. The next step records a new one."""
        self._graphs = {}

    def _update(self, image_BCHW: Tensor, *, is_later_phase: bool) -> None:
        """Do the part of a step that a CUDA graph can record: all but the counting in Python."""
        gradients = self.gradients(image_BCHW, is_later_phase=is_later_phase)
        is_finite, norm = self.optimizers.apply(gradients)
        self._add_metrics(gradients, is_finite=is_finite, gradient_norm=norm)

    def gradients(self, image_BCHW: Tensor, *, is_later_phase: bool) -> Gradients:
        """Return the gradients of the objective for uint8 images. Only the random numbers advance."""
        return self.objective.gradients(
            self.pixels(image_BCHW), noise=self.noise, beta=self._beta, is_later_phase=is_later_phase
        )

    def pixels(self, image_BCHW: Tensor) -> Tensor:
        """Return uint8 images as float32 in 0..1, or drawn to 0 and 1 if the run binarises them."""
        x_BCHW = image_BCHW.float() / 255
        if self.config.binarize == "dynamic":
            return (self.noise.uniform(*x_BCHW.shape) < x_BCHW).float()
        return x_BCHW

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint, by name."""
        tensors = {
            "generator": self.generator.get_state(),
            **self.step_metrics.tensors(),
            **self.ema.tensors(),
        }
        moments = self.optimizers.moments()
        for name, parameter in self._parameters.items():
            tensors[f"weights.{name}"] = parameter
            own = moments.get(parameter, {})
            tensors |= {f"optimizer.{key}.{name}": value for key, value in own.items()}
        return tensors

    @torch.no_grad()
    def weights(self) -> dict[str, Tensor]:
        """Return copies of the weights by name: averaged ones where there are averages."""
        with self.ema.swapped_in():
            return {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    @torch.no_grad()
    def start_from(self, weights: Mapping[str, Tensor]) -> list[str]:
        """Replace the first weights by those of trained networks, as `weights` returns them.

        The networks of the objective, such as a discriminator, take weights only if all of theirs are there.

        Args:
            weights: Weights by name. Those of the likelihood may be absent.

        Returns:
            The names of the networks that keep their random weights.

        Raises:
            BadConfig: Encoder or decoder have other weights or shapes. The message names the first of them.
        """
        for name, parameter in self._parameters.items():
            shape, given = tuple(parameter.shape), weights.get(name)
            found = "absent" if given is None else f"of shape {tuple(given.shape)}"
            if name.startswith("model.") and found != f"of shape {shape}":
                raise BadConfig(f"the weights are of other networks: {name} is {found}, not {shape}")
        if more := [name for name in weights if name.startswith("model.") and name not in self._parameters]:
            raise BadConfig(f"the weights are of other networks: {more[0]} is not one of this run's")
        fresh = []
        for network in {name.partition(".")[0]: None for name in self._parameters}:
            own = {name: p for name, p in self._parameters.items() if name.startswith(f"{network}.")}
            if all(name in weights and weights[name].shape == p.shape for name, p in own.items()):
                for name, parameter in own.items():
                    parameter.copy_(weights[name])
            else:
                fresh.append(network)
        self.ema.restart()
        return fresh

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], *, num_steps: int) -> None:
        """Restore what `tensors` returned after `num_steps` steps.

        Raises:
            BadRun: Names or shapes are not those of this run's networks.
        """
        try:
            for name, parameter in self._parameters.items():
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
            # The state of a generator fits devices of its own type only; elsewhere the draws start again.
            if tensors["generator"].shape == self.generator.get_state().shape:
                self.generator.set_state(tensors["generator"])
        except (KeyError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise BadRun(
                "the checkpoint does not fit the networks of its own settings: it is damaged"
            ) from None
        self.num_steps = num_steps
        # A graph writes to the optimiser state that was here before.
        self.free_graphs()


def _average(dist: DistContext) -> Callable[..., None]:
    """Return the mean over the processes, which compiled code calls but does not contain."""
    if dist.size == 1:
        return dist.mean_
    # Compiled code would keep the process group, and would lose the error messages of a failed exchange.
    disabled: Callable[..., None] = torch.compiler.disable(dist.mean_)  # type: ignore[no-untyped-call]
    return disabled
