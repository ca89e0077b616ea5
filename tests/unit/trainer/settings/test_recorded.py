"""The settings that a bundle records."""

import json

from convvae_trainer.settings.assembly import config_from
from convvae_trainer.settings.config import Config
from convvae_trainer.settings.recorded import recorded_settings


def test_settings_that_decide_on_the_weights_are_recorded_without_paths_and_seed() -> None:
    """Two runs that differ in the seed, the machine or the place of the data have equal records."""
    first = Config(dataset="/home/someone/pictures", data_root="/data", seed=1, device="cpu", threads=1)
    second = Config(dataset="pictures", seed=2, threads=2, compile=True, tensorboard=False)
    found = recorded_settings(first)
    assert found == recorded_settings(second)
    assert "/home" not in json.dumps(found)
    assert (found["latent_dim"], found["likelihood"], found["image_size"]) == (32, "auto", None)
    assert recorded_settings(Config(dataset="pictures", width=8)) != found


def test_a_length_that_is_the_default_is_recorded_as_a_number() -> None:
    """A run of the default length equals one that names it; a run by time has no number of epochs."""
    assert recorded_settings(Config(dataset="d")) == recorded_settings(Config(dataset="d", epochs=30))
    timed = recorded_settings(Config(dataset="d", minutes=2))
    assert (timed["epochs"], timed["minutes"]) == (None, 2)


def test_settings_that_the_objective_does_not_use_are_left_out() -> None:
    """An autoencoder has no weight of the rate, and only adversarial objectives have a discriminator."""
    names = {
        objective: set(recorded_settings(config_from({"dataset": "d", "objective": objective})))
        for objective in ("ae", "vae", "vae-gan")
    }
    assert "beta" in names["vae"] & names["vae-gan"] - names["ae"]
    assert "discriminator_width" in names["vae-gan"] - names["vae"] - names["ae"]
