"""Names of devices have four forms."""

import pytest

from convvae_service.engine.device_name import is_device_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("auto", "cpu", "cuda", "cuda:0", "cuda:12")),
        *((name, False) for name in ("", "gpu", "CPU", "cpu:0", "cuda:", "cuda:-1", "cuda:٣", "cuda:0\n")),
    ],
)
def test_only_the_four_forms_are_names(name: str, expected: bool) -> None:
    """Digits are those of ASCII, and nothing follows them."""
    assert is_device_name(name) is expected
