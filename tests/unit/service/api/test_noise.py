import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convvae_service.api.noise import MAX_SEED, draw_seed, latent_noise

_MASK = 2**64 - 1

# (seed, first_row, count, dimension): float32 values as hexadecimal. These never change: a seed that a user
# has written down must give the same images from every later version.
GOLDEN = {
    (0, 0, 2, 3): [
        ["0x1.44ad640000000p-3", "0x1.7dcefe0000000p+1", "-0x1.ecfa260000000p+0"],
        ["-0x1.9eba0a0000000p-3", "0x1.27e02a0000000p+0", "0x1.5221220000000p-2"],
    ],
    (7, 0, 2, 4): [
        ["-0x1.2d51680000000p-3", "0x1.0114d80000000p-1", "-0x1.1752660000000p+0", "0x1.79a5020000000p-1"],
        ["-0x1.780b840000000p-1", "-0x1.0dc7780000000p+1", "-0x1.2214b00000000p+0", "-0x1.12568c0000000p+0"],
    ],
    (MAX_SEED, MAX_SEED, 1, 5): [
        [
            "0x1.07fc8e0000000p+0",
            "-0x1.93593a0000000p-1",
            "0x1.155f7c0000000p-1",
            "0x1.6cf5440000000p-1",
            "0x1.1383040000000p-3",
        ]
    ],
    (123456789, 1000, 1, 2): [["-0x1.6e09680000000p+1", "-0x1.957b700000000p-1"]],
}


def philox(counter: int, key: int) -> list[int]:
    """Philox4x64-10 in plain integers, after Salmon et al. 2011."""
    words = [(counter >> (64 * i)) & _MASK for i in range(4)]
    keys = [key & _MASK, key >> 64]
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * words[0], 0xCA5A826395121157 * words[2]
        words = [
            (second >> 64) ^ words[1] ^ keys[0],
            second & _MASK,
            (first >> 64) ^ words[3] ^ keys[1],
            first & _MASK,
        ]
        keys = [(keys[0] + 0x9E3779B97F4A7C15) & _MASK, (keys[1] + 0xBB67AE8584CAA73B) & _MASK]
    return words


def reference_row(seed: int, row: int, dimension: int) -> list[float]:
    """One row by the module's description, without numpy."""
    blocks = math.ceil(dimension / 4)
    draws = [word for block in range(blocks) for word in philox(row * blocks + block + 1, seed)]
    values = []
    for first, second in zip(draws[::2], draws[1::2], strict=True):
        radius = math.sqrt(-2 * math.log(((first >> 11) + 1) * 2**-53))
        angle = 2 * math.pi * (second >> 11) * 2**-53
        values += [radius * math.cos(angle), radius * math.sin(angle)]
    return values[:dimension]


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_vectors(case: tuple[int, int, int, int]) -> None:
    """A seed gives the values that it has always given."""
    seed, first_row, count, dimension = case
    noise = latent_noise(seed, first_row=first_row, count=count, dimension=dimension)
    assert noise.dtype == np.float32
    assert [[float(value).hex() for value in row] for row in noise] == GOLDEN[case]


@given(st.integers(0, MAX_SEED), st.integers(0, 2**80), st.integers(1, 9))
def test_agrees_with_a_plain_implementation(seed: int, row: int, dimension: int) -> None:
    """Each row is the one that the published algorithm gives."""
    noise = latent_noise(seed, first_row=row, count=1, dimension=dimension)[0]
    np.testing.assert_allclose(noise, reference_row(seed, row, dimension), rtol=3e-7, atol=1e-12)


@given(st.integers(0, MAX_SEED), st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 33), st.data())
def test_a_piece_is_a_piece_of_the_whole(
    seed: int, first_row: int, count: int, dimension: int, data: st.DataObject
) -> None:
    """A row does not depend on where the call that asks for it begins or ends."""
    whole = latent_noise(seed, first_row=first_row, count=count, dimension=dimension)
    start = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(start + 1, count))
    piece = latent_noise(seed, first_row=first_row + start, count=stop - start, dimension=dimension)
    np.testing.assert_array_equal(piece, whole[start:stop])


def test_is_standard_normal() -> None:
    """Mean, variance, tails and correlation are those of independent N(0, 1)."""
    noise = latent_noise(1, first_row=0, count=50_000, dimension=6).astype(np.float64)
    assert np.isfinite(noise).all()
    assert abs(noise.mean()) < 0.01
    assert abs(noise.var() - 1) < 0.01
    assert abs((noise**4).mean() - 3) < 0.1
    assert np.abs(np.corrcoef(noise.T) - np.eye(6)).max() < 0.03


def test_drawn_seeds_fit_a_double() -> None:
    """A seed that the server draws is below 2^53 and fresh each time."""
    seeds = {draw_seed() for _ in range(100)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**53 for seed in seeds)
