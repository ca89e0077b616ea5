"""The plan of a study: which runs it has, what they share, and which studies cannot be matched."""

from typing import Any

import pytest

from convvae_trainer.errors import BadConfig
from convvae_trainer.settings.config import SETTINGS
from convvae_trainer.settings.layers import FLAGS, Layer
from convvae_trainer.settings.objectives import OBJECTIVES, ObjectiveRow, settings_by_user
from convvae_trainer.settings.presets import preset_settings
from convvae_trainer.settings.sweep import parse_vary
from convvae_trainer.study.plan import StudyPlan, make_plan


def planned(
    *vary: str,
    objectives: str | None = None,
    seeds: str | None = None,
    file: dict[str, Any] | None = None,
    **flags: Any,
) -> StudyPlan:
    layers = [Layer(file or {}, "study.toml"), Layer({"dataset": "digits", **flags}, FLAGS)]
    return make_plan(layers, objectives=objectives, seeds=seeds, vary=parse_vary(vary))


def test_all_objectives_and_three_seeds_are_the_default() -> None:
    """A data set alone gives a run of each objective with each of three seeds, all objectives first."""
    plan = planned()
    assert [run.name for run in plan.runs][:5] == [*(f"{each}-seed0" for each in OBJECTIVES), "ae-seed1"]
    assert len(plan.runs) == 3 * len(OBJECTIVES)
    assert plan.systems == list(OBJECTIVES)


def test_runs_of_one_seed_differ_only_in_what_belongs_to_the_objective() -> None:
    """Data, likelihood, networks, epochs and batches are the same for all objectives."""
    own = set(settings_by_user()) | {"objective", "learning_rate"}
    configs = [run.config for run in planned(seeds="1", epochs=7, beta=2.0).runs]
    for name in set(SETTINGS) - own:
        assert len({getattr(config, name) for config in configs}) == 1, name
    assert [config.likelihood for config in configs] == ["gaussian"] * 4


def test_the_shared_likelihood_is_the_one_that_an_objective_needs() -> None:
    """VAE_Dis_l and VAE/GAN need a Gaussian, which then is the likelihood of all; the plan says why."""
    assert planned(objectives="ae,vae-gan").reasons == ("likelihood gaussian for all: vae-gan needs it",)
    plain = planned(objectives="ae,vae")
    assert plain.reasons == ()
    assert len({run.config.likelihood for run in plain.runs}) == 1


def test_a_likelihood_that_is_left_to_the_images_is_still_the_same_for_all() -> None:
    """auto, also where it is given, is what an objective needs; without such a need the images decide."""
    for plan in (planned(likelihood="auto"), planned(file={"likelihood": "auto"})):
        assert {run.config.likelihood for run in plan.runs} == {"gaussian"}
    plain = planned(objectives="ae,vae", likelihood="auto")
    assert {run.config.likelihood for run in plain.runs} == {"auto"}


def test_a_default_of_one_objective_holds_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """If an objective trains longer than others by default, all runs of a study train as long."""
    longer = ObjectiveRow(
        class_path="a:B", help="", settings=(), defaults={"epochs": 99, "learning_rate": 0.5}
    )
    monkeypatch.setitem(OBJECTIVES, "vae", longer)
    plan = planned(objectives="ae,vae", seeds="1")
    assert [run.config.epochs for run in plan.runs] == [99, 99]
    assert [run.config.learning_rate for run in plan.runs] == [SETTINGS["learning_rate"].default, 0.5]
    assert plan.reasons == ("epochs 99 for all: the default of vae",)
    assert {run.config.epochs for run in planned(objectives="ae,vae", epochs=4).runs} == {4}


def test_several_variations_make_a_grid() -> None:
    """Each combination of values is a system, with a name that says so."""
    plan = planned("latent_dim=4,8", "beta=1,2", objectives="vae", seeds="1,5")
    names = [run.name for run in plan.runs]
    assert names[:2] == ["vae-latent-dim-4-beta-1-seed1", "vae-latent-dim-4-beta-2-seed1"]
    assert len(names) == len(set(names)) == 8
    assert [(run.config.latent_dim, run.config.beta, run.config.seed) for run in plan.runs][3] == (8, 2.0, 1)
    assert plan.runs[3].varied == {"latent_dim": 8, "beta": 2.0}


def test_a_variation_that_an_objective_does_not_use_trains_it_once() -> None:
    """An autoencoder has no rate: two values of beta make one run of it, and two of a VAE."""
    plan = planned("beta=1,2", objectives="ae,vae", seeds="1")
    assert [run.name for run in plan.runs] == ["ae-seed0", "vae-beta-1-seed0", "vae-beta-2-seed0"]


def test_a_setting_holds_for_the_objectives_that_use_it() -> None:
    """A setting of VAE_Dis_l is no error because the study has a VAE too; without VAE_Dis_l it is one."""
    by_name = {run.name: run.config for run in planned(seeds="1", gan_share=0.5).runs}
    assert by_name["vae-disl-seed0"].gan_share == 0.5
    assert by_name["vae-seed0"].gan_share == SETTINGS["gan_share"].default
    with pytest.raises(BadConfig, match=r"--gan-share 0\.5 is not used by objective=ae"):
        planned(objectives="ae,vae", gan_share=0.5)


def test_a_file_gives_the_objective_and_the_first_seed() -> None:
    """The config.json of a run serves as it is: its objective is trained, with seeds from its seed on."""
    plan = planned(file={"objective": "vae", "seed": 7})
    assert [run.name for run in plan.runs] == ["vae-seed7", "vae-seed8", "vae-seed9"]
    assert [run.name for run in planned(file={"objective": "vae"}, objectives="ae", seeds="1").runs] == [
        "ae-seed0"
    ]


@pytest.mark.parametrize(
    ("flags", "objectives", "vary", "message"),
    [
        ({"minutes": 3.0}, None, (), "minutes is 3, and time would decide the number of steps"),
        ({"early_stop_epochs": 3}, "ae,vae", (), "early_stop_epochs is 3, and each run would stop"),
        ({"early_stop_epochs": 3}, None, (), "early_stop_epochs=3 is not used by vae-disl and vae-gan"),
        ({"binarize": "dynamic"}, None, (), "binarize=dynamic is not used by vae-disl and vae-gan"),
        ({"sigma": 0.1}, None, (), "sigma=0.1 is not used by vae-disl and vae-gan: leave it out, or"),
        ({}, None, ("sigma=0.1,0.2",), "sigma=0.1 is not used by vae-disl and vae-gan"),
        ({"likelihood": "bernoulli"}, None, (), "needs likelihood=gaussian, not --likelihood bernoulli"),
        ({}, None, ("likelihood=bernoulli,gaussian",), "needs likelihood=gaussian, not likelihood=bernoulli"),
        ({}, "vae", ("latent_dim=0,4",), "--vary: latent_dim is 0: it must be from 1 to 65536"),
    ],
)
def test_a_study_that_cannot_be_matched_names_the_setting(
    flags: dict[str, Any], objectives: str | None, vary: tuple[str, ...], message: str
) -> None:
    """A setting that gives runs other steps or another likelihood is refused in one line."""
    with pytest.raises(BadConfig) as raised:
        planned(*vary, objectives=objectives, **flags)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_preset_with_a_time_limit_needs_epochs() -> None:
    """The preset for MNIST trains by time, so that its runs match only with a number of epochs."""
    layers = [Layer(preset_settings("mnist"), "preset mnist")]
    with pytest.raises(BadConfig, match="minutes is 60"):
        make_plan(layers, objectives="ae,vae", seeds="1", vary={})
    plan = make_plan([*layers, Layer({"epochs": 2}, FLAGS)], objectives="ae,vae", seeds="1", vary={})
    assert {run.config.epochs for run in plan.runs} == {2}


def test_objectives_with_other_needs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two objectives that need different likelihoods are not compared."""
    row = ObjectiveRow(class_path="a:B", help="", settings=(), needs={"likelihood": "bernoulli"})
    monkeypatch.setitem(OBJECTIVES, "ae", row)
    with pytest.raises(BadConfig, match="of likelihood, ae needs bernoulli, vae-gan needs gaussian"):
        planned(objectives="ae,vae-gan")


def test_a_name_that_is_too_long_is_refused() -> None:
    """A run's name is that of a model, which has at most 64 characters."""
    vary = ["latent_dim=4", "width=4", "hidden=16", "free_bits=0.25", "weight_decay=0.01", "batch_size=16"]
    with pytest.raises(BadConfig, match="--vary: a run would be named vae-latent-dim-4-width-4"):
        planned(*vary, objectives="vae")


def test_too_many_runs_are_refused() -> None:
    """A grid of more runs than anyone trains is refused before it is laid out."""
    values = ",".join(map(str, range(1, 200)))
    with pytest.raises(BadConfig, match="the study would have 118803 runs"):
        planned(f"latent_dim={values}", f"width={values}", objectives="vae")
