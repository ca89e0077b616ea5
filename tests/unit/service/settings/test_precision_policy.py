import pytest

from convvae_service.settings.precision_policy import PrecisionPolicies, parse_precision_policies


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], PrecisionPolicies()),
        (["auto"], PrecisionPolicies(None)),
        (["fp16"], PrecisionPolicies("fp16")),
        (["faces=int8"], PrecisionPolicies(None, {"faces": "int8"})),
        (
            ["faces=int8", "fp16", "mnist=auto", "a.b-c_d=fp32"],
            PrecisionPolicies("fp16", {"faces": "int8", "mnist": None, "a.b-c_d": "fp32"}),
        ),
    ],
)
def test_words_make_policies(words: list[str], expected: PrecisionPolicies) -> None:
    """Each precision is accepted for all models and for one, in any order. The default is auto."""
    assert parse_precision_policies(words) == expected


@pytest.mark.parametrize("word", ["", "fp64", "FP16", "int8 ", "=int8", "m=", "m=fp64", "a=b=int8", "int8=m"])
def test_other_words_are_refused(word: str) -> None:
    """An unknown word is refused, and the message shows the valid forms."""
    with pytest.raises(ValueError, match="is not auto, fp32, fp16 or int8, nor MODEL= followed") as caught:
        parse_precision_policies([word])
    assert repr(word) in str(caught.value)


@pytest.mark.parametrize(
    ("words", "who"),
    [
        (["fp16", "int8"], "all models"),
        (["auto", "auto"], "all models"),
        (["m=fp16", "fp32", "m=int8"], "m"),
        (["m=int8", "m=int8"], "m"),
    ],
)
def test_one_word_for_each(words: list[str], who: str) -> None:
    """A second word for the same models is refused, even if it is the same."""
    with pytest.raises(ValueError, match=f"^'{words[-1]}' is a second word for {who}: give only one$"):
        parse_precision_policies(words)


def test_a_model_has_its_own_precision_or_that_of_all() -> None:
    """`auto` for one model does not change the others."""
    policies = parse_precision_policies(["int8", "mnist=auto", "faces=fp16"])
    assert [policies.of(name) for name in ("mnist", "faces", "other")] == [None, "fp16", "int8"]
