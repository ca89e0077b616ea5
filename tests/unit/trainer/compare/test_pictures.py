"""Figures are PNG whose pixels are what was given."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from convvae_trainer.compare import charts
from convvae_trainer.compare.image_row import ImageRow
from convvae_trainer.compare.image_sheet import TILE_PIXELS, sheet


def pixels(data: bytes) -> NDArray[np.uint8]:
    """Decode a PNG to RGB."""
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def contains(picture: NDArray[np.uint8], tile: NDArray[np.uint8]) -> bool:
    """Whether the tile stands somewhere in the picture, pixel by pixel."""
    height, width = tile.shape[:2]
    corners = (picture[: -height + 1, : -width + 1] == tile[0, 0]).all(-1)
    return any(
        np.array_equal(picture[y : y + height, x : x + width], tile)
        for y, x in zip(*np.nonzero(corners), strict=True)
    )


@pytest.mark.parametrize("shape", [(16, 12, 1), (9, 20, 3)])
def test_a_sheet_holds_every_image_enlarged_by_one_whole_factor(shape: tuple[int, int, int]) -> None:
    """No pixel is wider than another, and no value changes."""
    images = np.random.default_rng(0).integers(0, 256, (2, 3, *shape), dtype=np.uint8)
    rows = [ImageRow(label=f"row {n}", note="vae", images=images[n]) for n in range(2)]
    picture = pixels(sheet(rows, captions=["a", "b", "c"]))
    scale = -(-TILE_PIXELS // min(shape[:2]))
    for image in images.reshape(-1, *shape):
        tile = image.repeat(scale, axis=0).repeat(scale, axis=1)
        assert contains(picture, np.broadcast_to(tile, (*tile.shape[:2], 3)))


def test_labels_of_a_sheet_are_plain_text_and_stay_off_the_images() -> None:
    """A long name with characters of formulas makes the sheet wider, not wrong."""
    images = np.full((1, 8, 8, 1), 7, dtype=np.uint8)
    name = "$x_1^{$-a-very-long-name-of-a-model-that-has-to-wrap"
    long = pixels(sheet([ImageRow(label=name, images=images)]))
    short = pixels(sheet([ImageRow(label="a", images=images)]))
    assert long.shape[1] > short.shape[1]
    assert (long == 7).all(-1).sum() == (short == 7).all(-1).sum() == 96 * 96


def test_equal_figures_are_equal_files() -> None:
    """Nothing of the day or the version is written into a picture."""
    points = np.random.default_rng(0).normal(size=(50, 2))
    labels = np.arange(50) % 3
    panel = charts.ScatterPanel(title="both", points=points, labels=labels)
    assert charts.scatters([panel]) == charts.scatters([panel])


def test_a_scatter_has_a_colour_for_each_class_and_one_without_labels() -> None:
    """As many hues are drawn as there are classes."""
    points = np.random.default_rng(0).uniform(-2, 2, size=(300, 2))

    def hues(labels: NDArray[np.int64] | None) -> int:
        picture = pixels(charts.scatters([charts.ScatterPanel(title="t", points=points, labels=labels)]))
        # Left of the legend; strong colours only, for points are transparent.
        hue, saturation, _ = Image.fromarray(picture[:, :560]).convert("HSV").split()
        strong = np.asarray(saturation) > 70
        return int((np.bincount(np.asarray(hue)[strong] // 16, minlength=16) > 50).sum())

    assert hues(None) == 1
    assert hues((np.arange(300) % 3).astype(np.int64)) == 3


def test_many_classes_are_drawn_without_a_legend() -> None:
    """Each class has a colour of its own, also if there are too many for a legend."""
    labels = np.arange(100, dtype=np.int64)
    colours = charts.class_colours(100)
    assert len(np.unique(colours, axis=0)) == 100
    panel = charts.ScatterPanel(
        title="t", points=np.random.default_rng(0).normal(size=(100, 2)), labels=labels
    )
    assert pixels(charts.scatters([panel])).shape[2] == 3


def test_a_class_has_its_name_where_it_is_known() -> None:
    """A long name is cut, and a label without a name is a number; signs of formulas are text."""
    names = ("cat", "a very long name of a class", "$x$")
    assert [charts.class_name(label, names) for label in range(4)] == ["cat", "a very long n…", "$x$", "3"]
    assert charts.class_name(1, names, characters=6) == "a ver…"
    assert charts.class_name(7, None) == "7"
    points = np.random.default_rng(0).normal(size=(30, 2))
    panel = charts.ScatterPanel(title="t", points=points, labels=(np.arange(30) % 3).astype(np.int64))
    named = pixels(charts.scatters([panel], class_names=("cat", "_hidden", "$x^{$")))
    assert named.shape[1] > pixels(charts.scatters([panel])).shape[1]


def test_validation_is_a_second_dashed_curve() -> None:
    """A metric of the validation images is drawn beside that of the training images, in the same chart."""
    columns = (("loss", {"loss": "-ELBO"}),)
    training = {"loss": [3.0, 2.0, 1.0]}
    without = charts.LossCurve(label="a", epochs=[1, 2, 3], values=training)
    both = charts.LossCurve(
        label="a", epochs=[1, 2, 3], values={**training, "validation_loss": [3.0, 2.5, 2.4]}
    )
    alone, beside = (pixels(charts.curves([curve], charts=columns)) for curve in (without, both))
    assert alone.shape == beside.shape
    blue = [(picture[..., 2].astype(int) - picture[..., 0] > 60).sum() for picture in (alone, beside)]
    assert blue[1] > 1.3 * blue[0] > 0


def test_curves_pass_over_what_is_missing() -> None:
    """A chart is drawn for a metric that a model has; a column that no model has is left out."""
    columns = (("loss", {"loss": "-ELBO"}), ("game", {"adversarial": "decoder"}))
    without = charts.LossCurve(
        label="a", epochs=[1, 2], values={"loss": [2.0, None], "adversarial": [None, None]}
    )
    with_game = charts.LossCurve(
        label="b", epochs=[1, 2], values={"loss": [2.0, 1.0], "adversarial": [0.5, 0.6]}
    )
    narrow = pixels(charts.curves([without], charts=columns))
    wide = pixels(charts.curves([without, with_game], charts=columns))
    assert wide.shape[1] > 1.5 * narrow.shape[1]
    upper_right = wide[: wide.shape[0] // 2, wide.shape[1] // 2 + 40 :]
    assert (upper_right == 255).all()


def test_the_legend_of_a_curve_stands_below_its_chart() -> None:
    """No text covers a curve, wherever the curves run: inside of the grid nothing is as dark as text."""
    rng = np.random.default_rng(0)
    names = {"distortion": "distortion", "elbo": "-ELBO"}
    keys = [*names, *(charts.VALIDATION + name for name in names)]
    values = {key: list(rng.uniform(-1, 1, 200)) for key in keys}
    curve = charts.LossCurve(label="VAE", epochs=range(1, 201), values=values)
    picture = pixels(charts.curves([curve], charts=[("nats per image", names)])).astype(int)
    grid = (picture == (0xEA, 0xEE, 0xF2)).all(-1)
    assert grid.any()
    rows, columns = np.nonzero(grid)
    dark = picture.max(-1) < 0x40
    assert not dark[rows.min() : rows.max(), columns.min() : columns.max()].any()
    assert dark[rows.max() :].any()
