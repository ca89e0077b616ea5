import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from convvae_service.api import servicer
from convvae_service.api.noise import latent_noise
from convvae_service.api.servicer import VaeServicer


@pytest.mark.parametrize(("count", "aside"), [(10, False), (5000, True)])
def test_much_noise_is_made_by_a_worker(
    count: int,
    aside: bool,
    monkeypatch: pytest.MonkeyPatch,
    run_to_end: Callable[[Coroutine[Any, Any, Any]], Any],
) -> None:
    """A large sample does not hold up health and other calls; the values are the seed's either way."""
    makers: list[int] = []

    def noted(seed: int, **words: Any) -> Any:
        makers.append(threading.get_ident())
        return latent_noise(seed, **words)

    monkeypatch.setattr(servicer, "latent_noise", noted)
    nothing: Any = None
    with ThreadPoolExecutor(1) as workers:
        vae = VaeServicer(
            settings=nothing, repository=nothing, batcher=nothing, workers=workers, decoding_threads=nothing
        )
        made = run_to_end(vae._noise(7, first_row=3, count=count, dimension=16))
    np.testing.assert_array_equal(made, latent_noise(7, first_row=3, count=count, dimension=16))
    assert (makers != [threading.get_ident()]) is aside
