import threading
from typing import Any

import numpy as np
import pytest

from convvae_service.api import servicer
from convvae_service.api.noise import latent_noise


@pytest.mark.parametrize(("count", "aside"), [(10, False), (5000, True)])
async def test_much_noise_is_made_beside_the_event_loop(
    count: int, aside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large sample does not hold up health and other calls; the values are the seed's either way."""
    makers: list[int] = []

    def noted(seed: int, **words: Any) -> Any:
        makers.append(threading.get_ident())
        return latent_noise(seed, **words)

    monkeypatch.setattr(servicer, "latent_noise", noted)
    made = await servicer._noise(7, first_row=3, count=count, dimension=16)
    np.testing.assert_array_equal(made, latent_noise(7, first_row=3, count=count, dimension=16))
    assert (makers != [threading.get_ident()]) is aside
