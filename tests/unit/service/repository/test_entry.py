from typing import cast

import pytest

from convvae_service.repository.entry import ModelEntry, VersionEntry, VersionState
from convvae_service.repository.loaded_version import LoadedVersion
from convvae_service.settings.version_policy import VersionPolicy

LOADED = cast(LoadedVersion, object())


def version(kind: str) -> VersionEntry:
    """A version that is `due`, `serving`, `failed`, `changed` while it serves, or `removed` while it does."""
    if kind == "due":
        return VersionEntry()
    if kind == "failed":
        return VersionEntry(VersionState.FAILED, "damaged", due=False)
    return VersionEntry(VersionState.SERVING, loaded=LOADED, due=kind == "changed", removed=kind == "removed")


def entry(kinds: str, policy: VersionPolicy, pinned: int | None = None) -> ModelEntry:
    versions = {number: version(kind) for number, kind in enumerate(kinds.split(), 1)}
    return ModelEntry(versions, policy=policy, pinned=pinned)


ONE, TWO, ALL = VersionPolicy(1), VersionPolicy(2), VersionPolicy(None)
LISTED = VersionPolicy(None, frozenset({1, 3}))


@pytest.mark.parametrize(
    ("kinds", "policy", "pinned", "wanted", "next_due"),
    [
        ("due due due", ONE, None, [3], 3),
        ("due due failed", ONE, None, [2], 2),
        ("due serving failed", ONE, None, [2], None),
        ("serving due", ONE, None, [2], 2),
        ("serving failed", ONE, None, [1], None),
        ("failed failed", ONE, None, [], None),
        ("due serving", ONE, None, [2], None),
        ("serving changed", ONE, None, [2], 2),
        ("due removed", ONE, None, [1], 1),
        ("due serving failed serving", TWO, None, [4, 2], None),
        ("due failed failed serving", TWO, None, [4, 1], 1),
        ("serving due failed", ALL, None, [2, 1], 2),
        ("due due due", LISTED, None, [3, 1], 3),
        # A pinned version comes first, takes one of the newest N places, and is had whatever is listed.
        ("due due due", ONE, 1, [1], 1),
        ("serving due due", ONE, 1, [1], None),
        ("serving due due", TWO, 1, [1, 3], 3),
        ("serving due due", TWO, 3, [3, 2], 3),
        ("due due due", LISTED, 2, [2, 3, 1], 2),
        # Without it no other is had in its place.
        ("removed due due", ONE, 1, [], None),
        ("failed due due", TWO, 1, [3], 3),
    ],
)
def test_which_versions_are_wanted(
    kinds: str, policy: VersionPolicy, pinned: int | None, wanted: list[int], next_due: int | None
) -> None:
    """The newest that are not known to be bad, up to the policy's number; those not yet tried are next."""
    model = entry(kinds, policy, pinned)
    assert model.wanted == wanted
    assert model.next_due == next_due


@pytest.mark.parametrize(
    ("kinds", "pinned", "default"),
    [
        ("serving serving due", None, 2),
        ("serving failed", None, 1),
        ("due failed", None, None),
        ("serving removed", None, 2),
        ("serving serving", 1, 1),
        ("failed serving", 1, None),
    ],
)
def test_the_default_is_the_highest_loaded_or_the_pinned(
    kinds: str, pinned: int | None, default: int | None
) -> None:
    """A version that is removed stays until another has taken its place; a pin allows no other."""
    model = entry(kinds, ALL, pinned)
    assert model.choose_default() == (default is not None)
    assert model.default == default
    assert not model.choose_default()
