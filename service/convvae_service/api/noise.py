"""Noise that depends only on a seed and a row index.

Row i of a seed is the same vector in every call, process and machine, so samples can be repeated and split
into calls. The generator is Philox4x64-10 (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2,
3"), keyed by the seed. A row has Z values and b = ceil(Z / 4) blocks of four 64-bit draws; row i uses the
counters i * b + 1 to i * b + b. Draws 2k and 2k + 1 of a row become values 2k and 2k + 1 by the Box-Muller
transform in float64; the result is rounded to float32.
"""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_SEED", "MAX_TEMPERATURE", "draw_seed", "latent_noise"]

MAX_SEED = 2**64 - 1
# Far above any use, and far below the value where noise times temperature overflows.
MAX_TEMPERATURE = 1e6
_TO_UNIT = 2.0**-53


def draw_seed() -> int:
    """Return a random seed below 2^53. Numbers of every language hold it exactly."""
    return int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> np.uint64(11))


def latent_noise(seed: int, *, first_row: int, count: int, dimension: int) -> NDArray[np.float32]:
    """Return standard normal noise for rows `first_row` to `first_row + count - 1` of `seed`.

    Args:
        seed: 0 to 2^64 - 1.
        first_row: 0 or above.
        count: Number of rows.
        dimension: Values in a row.

    Returns:
        float32 array of shape (count, dimension).
    """
    blocks = math.ceil(dimension / 4)
    raw = np.random.Philox(key=seed, counter=first_row * blocks).random_raw(count * blocks * 4)
    # R = count, P = pairs in a row. A double has 53 bits: use the top 53 of each draw.
    bits_RP2 = (raw >> np.uint64(11)).astype(np.float64).reshape(count, blocks * 2, 2)
    radius_RP = np.sqrt(-2.0 * np.log((bits_RP2[..., 0] + 1.0) * _TO_UNIT))
    angle_RP = (2.0 * math.pi * _TO_UNIT) * bits_RP2[..., 1]
    normal_RP2 = np.stack((radius_RP * np.cos(angle_RP), radius_RP * np.sin(angle_RP)), axis=-1)
    return normal_RP2.reshape(count, blocks * 4)[:, :dimension].astype(np.float32)
