import pytest

from convvae_service.settings.version_policy import VersionPolicies, VersionPolicy, parse_version_policies


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], VersionPolicies()),
        (["latest:1"], VersionPolicies(VersionPolicy(1))),
        (["latest:12"], VersionPolicies(VersionPolicy(12))),
        (["all"], VersionPolicies(VersionPolicy(None))),
        (["3", "1"], VersionPolicies(VersionPolicy(None, frozenset({1, 3})))),
        (
            ["faces=2", "latest:2", "mnist=all", "faces=5"],
            VersionPolicies(
                VersionPolicy(2),
                {"faces": VersionPolicy(None, frozenset({2, 5})), "mnist": VersionPolicy(None)},
            ),
        ),
        (["mnist=latest:3"], VersionPolicies(VersionPolicy(1), {"mnist": VersionPolicy(3)})),
    ],
)
def test_words_make_policies(words: list[str], expected: VersionPolicies) -> None:
    """Each form is accepted for all models and for one. Versions add up, and the default is latest:1."""
    assert parse_version_policies(words) == expected


@pytest.mark.parametrize(
    "word", ["", "latest", "latest:0", "latest:-1", "0", "01", "newest", "=1", "m=", "m=0", "a=b=1"]
)
def test_other_words_are_refused(word: str) -> None:
    """An unknown word is refused by name."""
    with pytest.raises(ValueError, match="is not latest:N, all or VERSION") as caught:
        parse_version_policies([word])
    assert repr(word) in str(caught.value)


@pytest.mark.parametrize(
    "words", [["latest:1", "latest:2"], ["all", "3"], ["3", "all"], ["m=1", "m=latest:2"]]
)
def test_words_that_contradict_each_other_are_refused(words: list[str]) -> None:
    """There is one policy for a model."""
    with pytest.raises(ValueError, match=f"'{words[1]}' contradicts an earlier word for "):
        parse_version_policies(words)


def test_candidates_are_the_newest_first() -> None:
    """If versions are listed, others are not considered."""
    assert VersionPolicy(1).candidates([2, 10, 1]) == [10, 2, 1]
    assert VersionPolicy(None, frozenset({1, 10, 11})).candidates([2, 10, 1]) == [10, 1]
