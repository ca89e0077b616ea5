"""The lists of a study: objectives, seeds and varied settings, from the texts of the command line."""

import pytest

from convvae_trainer.errors import BadConfig
from convvae_trainer.settings.config import SETTINGS
from convvae_trainer.settings.declaration import Panel
from convvae_trainer.settings.sweep import parse_objectives, parse_seeds, parse_vary


def test_objectives_keep_their_order() -> None:
    """A list of objectives is read as it stands, with spaces around commas."""
    assert parse_objectives("vae-gan, ae") == ("vae-gan", "ae")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--objectives is empty"),
        (" , ", "--objectives is empty"),
        ("ae,,vae", "a value is missing beside a comma"),
        ("ae,vae,ae", "--objectives: ae is given twice"),
        ("vea", "unknown objective 'vea': did you mean vae?"),
        ("gan!", "The objectives are ae, vae, vae-disl, vae-gan"),
    ],
)
def test_bad_objectives_are_named(text: str, message: str) -> None:
    """An empty list, and an objective that is unknown or there twice, are refused."""
    with pytest.raises(BadConfig) as raised:
        parse_objectives(text)
    assert message in str(raised.value)


def test_seeds_are_a_count_or_a_list() -> None:
    """A count gives consecutive seeds from the first one; a list gives its own."""
    assert parse_seeds("3") == (0, 1, 2)
    assert parse_seeds("2", first=7) == (7, 8)
    assert parse_seeds("1, 5,9") == (1, 5, 9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--seeds is empty"),
        ("0", "--seeds is 0: give a number of seeds from 1 to 1000, or a list such as 1,5,9"),
        ("1001", "--seeds is 1001"),
        ("three", "--seeds: 'three' is not a whole number"),
        ("1,5,1", "--seeds: 1 is given twice"),
        ("1,01", "--seeds: 1 is given twice"),
        ("1,-2", "'-2' is not a whole number"),
        ("1,9007199254740992", "a seed is 9007199254740992: it must be from 0 to 9007199254740991"),
        ("1,", "a value is missing beside a comma"),
    ],
)
def test_bad_seeds_are_named(text: str, message: str) -> None:
    """A value that is no number, out of range or there twice is refused."""
    with pytest.raises(BadConfig) as raised:
        parse_seeds(text)
    assert message in str(raised.value)


def test_varied_values_have_the_type_of_their_setting() -> None:
    """Integers, floats, words and booleans are read as in a file; dashes and underscores are alike."""
    assert parse_vary(["latent-dim=16,32", "beta=1,0.5", "adaptive_weight=true,false"]) == {
        "latent_dim": (16, 32),
        "beta": (1.0, 0.5),
        "adaptive_weight": (True, False),
    }
    assert parse_vary(["likelihood=bernoulli"]) == {"likelihood": ("bernoulli",)}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["latent_dim"], "--vary latent_dim: give SETTING=A,B"),
        (["=1,2"], "give SETTING=A,B"),
        (["latent_dim="], "--vary latent_dim is empty"),
        (["latent_dim=4,4"], "--vary latent_dim: 4 is given twice"),
        (["beta=1,1.0"], "--vary beta: 1 is given twice"),
        (["latent_dim=4", "latent-dim=8"], "latent_dim is given twice: give all its values in one --vary"),
        (["latent_dmi=4,8"], "latent_dmi is not a setting of training: did you mean latent_dim?"),
        (["latent_dim=4.5"], "--vary latent_dim: '4.5' is not a whole number"),
        (["beta=high"], "--vary beta: 'high' is not a number"),
        (["adaptive_weight=1"], "use true or false"),
        (["likelihood=auto,gaussian"], "--vary likelihood: auto may mean any of the others"),
        (["seed=1,2"], "seed cannot be varied: --seeds gives the seeds"),
        (["objective=ae,vae"], "objective cannot be varied: --objectives gives the objectives"),
        (["run_dir=a,b"], "run_dir is not a setting"),
        (["minutes=1,2"], "minutes cannot be varied"),
        (["early_stop_epochs=1,2"], "early_stop_epochs cannot be varied"),
        (["image_size=8,16"], "image_size cannot be varied: all runs of a study need the same images"),
        (["dataset=digits,mnist"], "dataset cannot be varied"),
        (["threads=1,2"], "threads cannot be varied: it does not change the model"),
    ],
)
def test_bad_variations_are_named(texts: list[str], message: str) -> None:
    """A setting that is unknown, repeated or fixed, and a list that is empty or wrong, are refused."""
    with pytest.raises(BadConfig) as raised:
        parse_vary(texts)
    assert message in str(raised.value)


def test_settings_of_networks_and_losses_can_be_varied() -> None:
    """Each setting of networks, objectives and adversarial training is one that a study varies."""
    panels = (Panel.NETWORKS, Panel.OBJECTIVE, Panel.ADVERSARIAL)
    examples = {int: "2,3", float: "0.25,0.5", bool: "true,false"}
    for name, setting in SETTINGS.items():
        if setting.declaration.panel in panels and name != "objective":
            values = examples.get(setting.kind) or ",".join(set(setting.choices) - {"auto"})
            assert list(parse_vary([f"{name}={values}"])) == [name]
