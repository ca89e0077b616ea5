"""The measurement of image decoding: its pictures and its ratios."""

import numpy as np

from bench.decoding.costs import BATCH_FILES
from bench.decoding.pictures import PhotographCrops
from bench.image_decoding import NOW, summarize

KINDS = ("1024 to 64, noise", "1024 to 64, photographs")


def test_a_mosaic_is_full() -> None:
    """Every part of a mosaic is a piece of a photograph, also where the parts do not divide the side."""
    picture = np.asarray(PhotographCrops(seed=0).mosaic(100, 30))
    assert picture.shape == (100, 100, 3)
    assert all(
        picture[top : top + 10, left : left + 10].any()
        for top in range(0, 100, 10)
        for left in range(0, 100, 10)
    )


def test_a_ratio_above_one_is_a_gain() -> None:
    """Ratios are the older cost by the newer one, of medians, and bare decoding is subtracted."""
    calls = f"28x28x1 in calls of {BATCH_FILES}"
    scaled = {f"{kind}, scaled": 1000.0 for kind in KINDS}
    full = {f"{kind}, full": 4000.0 for kind in KINDS}
    now = [{"28x28x1, bare": 7.0, calls: cost} | scaled | full for cost in (20.0, 21.0, 90.0)]
    before = [{"28x28x1, bare": 7.0, calls: 168.0} | full]
    result = summarize({NOW: now, "old": before}, against="old")
    assert result["us_beyond_bare_in_calls"] == 14.0
    assert result["ratios"][f"{KINDS[0]}: full to scaled"] == 4.0
    assert result["ratios"][f"{calls}: before to now"] == 8.0
    assert summarize({NOW: now}, against=None)["ratios"].keys() == {
        f"{kind}: full to scaled" for kind in KINDS
    }
