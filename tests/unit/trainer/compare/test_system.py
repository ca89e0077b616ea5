"""Systems: models that differ in the seed alone, and their names."""

from typing import Any

import numpy as np
import pytest

from convvae_trainer.compare.system import grouped, make_systems
from support.compared_models import manifest_of, measured


def test_models_that_differ_in_the_seed_alone_form_one_system() -> None:
    """Three seeds of two objectives are two systems, in whatever order they are given."""
    manifests = [manifest_of(objective, seed=seed) for seed in range(3) for objective in ("vae", "vae-gan")]
    assert grouped(manifests) == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize(
    "other",
    [
        {"settings": {"beta": 2.0}},
        {"settings": {"width": 16}},
        {"settings": {"latent_dim": 8}},
        {"settings": {"likelihood": "bernoulli"}},
        {"settings": {"learning_rate": 0.1}},
        {"steps": 99},
        {"epochs": 4.0},
        {"data": "other"},
        {"images": 79},
        {"share_done": 0.5},
        {"weights_from": "other@1"},
        {"ends": [[5, None], [10, None]]},
        {"settings_recorded": False},
    ],
)
def test_any_other_difference_is_another_system(other: dict[str, Any]) -> None:
    """Settings, steps, data, and what is not recorded: nothing but the seed may differ."""
    assert grouped([manifest_of("vae", seed=0), manifest_of("vae", seed=1, **other)]) == [[0], [1]]


def test_the_same_run_twice_is_not_two_seeds() -> None:
    """Neither a seed that is there already nor equal weights under another seed make a spread."""
    first = manifest_of("vae", seed=0, weights="a")
    assert grouped([first, manifest_of("vae", seed=0, weights="b")]) == [[0], [1]]
    assert grouped([first, manifest_of("vae", seed=1, weights="a")]) == [[0], [1]]
    assert grouped([first, manifest_of("vae", seed=1, weights="b")]) == [[0, 1]]


def test_settings_that_contradict_the_manifest_count_as_not_recorded() -> None:
    """A record of another likelihood than the manifest's says nothing of this model."""
    manifests = [manifest_of("vae", seed=seed) for seed in range(2)]
    manifests[1].training.metrics["training_settings"]["likelihood"] = "bernoulli"
    assert grouped(manifests) == [[0], [1]]


@pytest.mark.parametrize("settings", [None, [], "x", {}, {"objective": ["vae"]}])
def test_a_damaged_record_is_no_record(settings: Any) -> None:
    """A manifest's metrics may hold anything."""
    manifests = [manifest_of("vae", seed=seed) for seed in range(2)]
    for manifest in manifests:
        manifest.training.metrics["training_settings"] = settings
    assert grouped(manifests) == [[0], [1]]


def test_runs_that_end_by_themselves_may_have_other_steps() -> None:
    """A run by time has as many steps as the machine manages; its seeds are one system all the same."""
    manifests = [
        manifest_of("vae", seed=seed, steps=100 + seed, settings={"minutes": 1.0}) for seed in range(2)
    ]
    assert grouped(manifests) == [[0, 1]]


def test_systems_have_the_names_of_the_lecture() -> None:
    """Systems of one objective are told apart by the settings that differ, or by the model's name."""
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)

    def names(*manifests: Any) -> list[str]:
        reports = [
            measured(manifest, images, images, label=f"m{row}") for row, manifest in enumerate(manifests)
        ]
        return [system.name for system in make_systems(reports)]

    assert names(*map(manifest_of, ("ae", "vae", "vae-disl", "vae-gan"))) == [
        "AE",
        "VAE",
        "VAE_Dis_l",
        "VAE/GAN",
    ]
    swept = [manifest_of("vae", seed=seed, settings={"beta": beta}) for beta in (1.0, 4.0) for seed in (0, 1)]
    assert names(*swept, manifest_of("ae")) == ["VAE, beta 1", "VAE, beta 4", "AE"]
    assert names(manifest_of("vae", weights="a"), manifest_of("vae", weights="b")) == [
        "VAE (m0)",
        "VAE (m1)",
    ]
