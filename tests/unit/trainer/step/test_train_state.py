"""The effect of a step on each network, compared with AdamW and the formulas of the losses."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from convvae_trainer.objectives.adversarial import ADVERSARIAL_BETAS, Adversarial
from convvae_trainer.objectives.base import BETAS
from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.objectives import OBJECTIVES
from convvae_trainer.step.optimizers import SCALE_RATE
from convvae_trainer.step.train_state import TrainState
from support.adversarial_formulas import (
    BATCH,
    CHANNELS,
    HEIGHT,
    LATENT_DIM,
    WIDTH,
    ByNetwork,
    Case,
    assert_same,
    expected_gan,
    expected_vae_disl,
    expected_vae_gan,
)

NETWORKS = ("encoder", "decoder", "discriminator", "likelihood", "features")
RATE = 1e-3


def state_of(objective: str, **settings: Any) -> TrainState:
    values = {"dataset": "x", "width": 2, "hidden": 8, "latent_dim": LATENT_DIM, "discriminator_width": 2}
    limits = {"max_gradient_norm": 1e12, "weight_decay": 0.1}
    likelihood = {"likelihood": "bernoulli", **OBJECTIVES[objective].needs}
    config = config_from(values, {"objective": objective, **likelihood, **limits, **settings})
    return TrainState(config, shape=(HEIGHT, WIDTH, CHANNELS), device=torch.device("cpu"))


def images() -> Tensor:
    generator = torch.Generator().manual_seed(8)
    return torch.randint(0, 256, (BATCH, CHANNELS, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)


def modules_of(train_state: TrainState) -> dict[str, nn.Module]:
    return train_state.objective.networks()


def objective_of(train_state: TrainState) -> Adversarial:
    assert isinstance(train_state.objective, Adversarial)
    return train_state.objective


def case_of(train_state: TrainState) -> Case:
    """Return the next step of `train_state` as a case: copies of its networks, and the same draws."""
    config, objective = train_state.config, objective_of(train_state)
    is_vae_gan = config.objective == "vae-gan"
    case = Case(loss=config.adversarial_loss, weight=config.adversarial_weight, adaptive=is_vae_gan, beta=1.2)
    case.model, case.likelihood = copy.deepcopy(train_state.model), copy.deepcopy(train_state.likelihood)  # type: ignore[assignment]
    case.discriminator = copy.deepcopy(objective.discriminator)
    case.features = copy.deepcopy(objective.features)
    generator = torch.Generator().manual_seed(config.seed)
    case.x = images().float() / 255
    case.noise = torch.randn((BATCH, LATENT_DIM), generator=generator)
    case.prior = torch.randn((BATCH, LATENT_DIM), generator=generator)
    return case


@pytest.mark.parametrize(
    ("objective", "fraction", "is_later_phase"),
    [("vae-gan", 0.5, True), ("vae-gan", 0.05, False), ("vae-disl", 0.1, True), ("vae-disl", 0.5, True)],
)
def test_a_step_applies_these_gradients_and_no_others(
    objective: str, fraction: float, is_later_phase: bool
) -> None:
    """AdamW moves each network along its own formula; a network without one is unchanged, bit by bit."""
    train_state = state_of(objective)
    before = {name: copy.deepcopy(module) for name, module in modules_of(train_state).items()}
    case = case_of(train_state)
    case.is_later_phase = is_later_phase
    if objective == "vae-gan":
        expected: ByNetwork = expected_vae_gan(case)
    else:
        expected = expected_gan(case) if fraction < train_state.config.gan_share else expected_vae_disl(case)
    train_state.step(images(), learning_rate=RATE, beta=1.2, fraction=fraction)
    given: ByNetwork = {}
    for name, module in modules_of(train_state).items():
        gradients = [parameter.grad for parameter in module.parameters()]
        held = tuple(gradient for gradient in gradients if gradient is not None)
        assert len(held) in (0, len(gradients))
        if held:
            given[name] = held
    assert_same(given, expected)
    for name, module in modules_of(train_state).items():
        start = list(before[name].parameters())
        if name in given:
            follow(name, start, given[name])
        for ours, theirs in zip(module.parameters(), start, strict=True):
            if name in given:
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
            else:
                assert torch.equal(ours, theirs), name


def follow(name: str, parameters: list[nn.Parameter], gradients: tuple[Tensor, ...]) -> None:
    """Take the step with torch's plain AdamW: little momentum for GAN networks, a high rate for scales."""
    is_scale = name in ("likelihood", "features")
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    torch.optim.AdamW(
        parameters,
        lr=RATE * (SCALE_RATE if is_scale else 1),
        betas=ADVERSARIAL_BETAS if name in ("decoder", "discriminator") else BETAS,
        weight_decay=0.0 if is_scale else 0.1,
        fused=False,
    ).step()


def test_the_second_phase_never_moves_the_discriminator() -> None:
    """In VAE_Dis_l the discriminator learns only before `gan_share`, the encoder only after it."""
    train_state = state_of("vae-disl", gan_share=0.5)
    for fraction, still, moving in ((0.2, "encoder", "discriminator"), (0.5, "discriminator", "encoder")):
        before = {name: copy.deepcopy(module) for name, module in modules_of(train_state).items()}
        for _ in range(3):
            train_state.step(images(), learning_rate=RATE, beta=1.0, fraction=fraction)
        assert same_weights(modules_of(train_state)[still], before[still])
        assert not same_weights(modules_of(train_state)[moving], before[moving])
        assert not same_weights(train_state.model.decoder, before["decoder"])


def test_what_is_not_played_has_no_loss() -> None:
    """Each phase of VAE_Dis_l has its own figures, which are means over the steps of that phase."""
    train_state = state_of("vae-disl", gan_share=0.5)

    def means_after(*fractions: float) -> dict[str, Any]:
        for fraction in fractions:
            train_state.step(images(), learning_rate=RATE, beta=1.0, fraction=fraction)
        return train_state.step_metrics.means()

    gan = means_after(0.2, 0.3)
    both = means_after(0.5)
    train_state.step_metrics.clear()
    encoding = means_after(0.6)
    for name in ("adversarial", "discrimination"):
        assert gan[name] == both[name] > 0
        assert encoding[name] is None
    assert gan["feature_distortion"] is None
    assert both["feature_distortion"] != 0 != encoding["feature_distortion"]
    assert not any("adversarial_weight" in means for means in (gan, both, encoding))
    train_state = state_of("vae-gan", adversarial_start=0.5)
    first = means_after(0.2)
    assert first["adversarial"] > 0
    assert first["feature_distortion"] != 0
    assert first["adversarial_weight"] == 0


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


class Biased(nn.Module):
    """A discriminator that adds constants to its logits: one for real images, another for fake ones."""

    def __init__(self, inner: nn.Module, *, real: float, made: float) -> None:
        super().__init__()
        self.inner, self.real, self.made = inner, real, made

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        features, logit = self.inner(x_BCHW)
        moved = torch.full_like(logit, self.made)
        moved[:BATCH] = self.real
        return features, logit + moved


def test_a_step_that_is_not_finite_moves_nobody() -> None:
    """One logit that is not finite, and no network changes."""
    train_state = state_of("vae-gan")
    objective = objective_of(train_state)
    objective.discriminate = Biased(objective.discriminator, real=math.nan, made=0.0)
    before = {name: copy.deepcopy(module) for name, module in modules_of(train_state).items()}
    train_state.step(images(), learning_rate=RATE, beta=1.0, fraction=0.5)
    assert all(same_weights(modules_of(train_state)[name], before[name]) for name in NETWORKS)
    means = train_state.step_metrics.means()
    assert means["skipped_steps"] == 1


class FromHost(TorchDispatchMode):
    """A mode that collects the operations which copy a value from host to device or back."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func) in ("aten.lift_fresh.default", "aten._local_scalar_dense.default"):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("objective", "fraction"), [("vae-gan", 0.0), ("vae-gan", 1.0), ("vae-disl", 0.0), ("vae-disl", 1.0)]
)
def test_no_step_makes_the_host_wait(objective: str, fraction: float) -> None:
    """No step waits for a GPU: no number is copied from the host, and none is fetched from the device."""
    train_state = state_of(objective)
    with FromHost() as mode:
        train_state.step(images(), learning_rate=RATE, beta=1.0, fraction=fraction)
    assert mode.seen == []
