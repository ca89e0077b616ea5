"""The parts of a map: places, colours, the picture and the page."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from convvae_service.pipeline.errors import BadUse
from convvae_service.pipeline.search.colours import coloured
from convvae_service.pipeline.search.map_page import map_page
from convvae_service.pipeline.search.map_picture import THUMBNAIL, map_picture
from convvae_service.pipeline.search.plane import on_plane

PLACES = np.array([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]])


def test_the_main_axes_keep_the_distances_along_them() -> None:
    """Vectors on a line stay on a line, in the same proportions, within the unit square."""
    line = np.outer([0, 1, 3], [1, 2, 2]).astype(np.float32)
    places = on_plane(line, "pca", seed=0)
    assert places.min() >= 0
    assert places.max() <= 1
    lengths = np.linalg.norm(np.diff(places, axis=0), axis=1)
    assert lengths[1] / lengths[0] == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize("latent", [1, 2, 16])
def test_groups_stay_together_on_the_plane(latent: int) -> None:
    """Of three separate groups, the nearest place of each row is of its own group, whatever the method."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(3), 12)
    vectors = (20 * groups[:, None] + random.normal(size=(36, latent))).astype(np.float32)
    for method in ("tsne", "pca"):
        places = on_plane(vectors, method, seed=0)
        assert places.shape == (36, 2)
        distances = np.linalg.norm(places[:, None] - places[None], axis=2) + 10 * np.eye(36)
        assert (groups[distances.argmin(axis=1)] == groups).all()
        np.testing.assert_array_equal(places, on_plane(vectors, method, seed=0))


def test_a_map_needs_three_rows() -> None:
    """Two places tell nothing."""
    with pytest.raises(BadUse, match="at least 3 rows, and there are 2"):
        on_plane(np.zeros((2, 4), np.float32), "pca", seed=0)


def test_classes_have_colours_in_natural_order() -> None:
    """10 comes after 9, and rows without a value are named."""
    colouring = coloured(["10", "9", None, "9"])
    assert [text for text, _ in colouring.legend] == ["9: 2", "10: 1", "(none): 1"]
    assert colouring.colours[1] == colouring.colours[3] == colouring.legend[0][1]
    assert len({*colouring.colours}) == 3


def test_many_texts_have_a_grey_rest_and_many_numbers_a_scale() -> None:
    """The legend says how many values are in the rest, and the ends of the scale."""
    texts = coloured([f"k{number}" for number in range(20)] + ["k3"] * 5)
    assert texts.legend[-1][0] == "9 others: 9"
    assert texts.legend[0][0] == "k3: 6"
    numbers = coloured([float(number) for number in range(100)])
    assert [text for text, _ in numbers.legend] == ["0", "24.75", "49.5", "74.25", "99"]
    assert numbers.colours[0] == "#440154"
    assert numbers.colours[-1] == "#fde725"
    assert (texts.is_scale, numbers.is_scale) == (False, True)


def test_the_picture_has_points_thumbnails_and_a_legend() -> None:
    """Each has its colour at its place; without classes there is no legend."""
    colouring = coloured(["a", "b", "b"])
    red = [Image.new("RGB", (8, 8), "red")] * 3
    picture = map_picture(PLACES, colouring, red, heading="three")
    colours = {tuple(pixel) for pixel in np.asarray(picture).reshape(-1, 3).tolist()}
    assert {(255, 0, 0), (0, 0x72, 0xB2), (0xE6, 0x9F, 0)} <= colours
    assert (np.asarray(picture) == (255, 0, 0)).all(axis=2).sum() == 3 * THUMBNAIL**2  # all are whole
    plain = map_picture(PLACES, coloured(None), None, heading="three")
    assert plain.width < picture.width


def test_the_picture_is_as_high_as_its_map() -> None:
    """A flat map leaves no empty half."""
    flat = map_picture(PLACES * [1, 0.1] + [0, 0.45], coloured(None), None, heading="three")
    assert flat.height < 0.3 * flat.width
    blue = (np.asarray(flat) == (0, 0x72, 0xB2)).all(axis=2)
    assert blue.any(axis=1).sum() == 3 * 7  # three whole points of 7 pixels


def test_the_page_is_whole_and_no_id_ends_its_script() -> None:
    """It names no other host, and its data are what was given, whatever is in the ids."""
    ids = ["</script><script>alert(1)</script>", "b\u2028", "c"]
    page = map_page(PLACES, ids, coloured(["x", "y", "y"]), ["x", "y", "y"], None, heading="a < b")
    assert page.count("<script>") == page.count("</script>") == 1
    assert "a &lt; b" in page
    assert not re.search(r"https?://|//[a-z]+\.", page)
    data = re.search(r"const data = (.*);\n", page)
    assert data is not None
    found = json.loads(data[1])
    assert found["ids"] == ids
    assert found["places"] == PLACES.tolist()
    named = map_page(
        PLACES, ["{{heading}}", "{{data}}", "c"], coloured(None), None, None, heading="{{data}}.npz"
    )
    assert "<title>{{data}}.npz</title>" in named
    assert '["{{heading}}", "{{data}}", "c"]' in named
    pictured = map_page(PLACES, ids, coloured(None), None, [Image.new("RGB", (4, 4))] * 3, heading="")
    assert "data:image/jpeg;base64," in pictured


def test_the_pictures_of_a_large_page_stay_within_what_browsers_show() -> None:
    """They become smaller with their number."""
    count = 40_000
    places = np.random.default_rng(0).random((count, 2))
    pictures = [Image.new("RGB", (4, 4), "red")] * count
    page = map_page(places, [""] * count, coloured(None), None, pictures, heading="")
    found = re.search(r'"sprite": "data:image/jpeg;base64,([^"]*)"', page)
    assert found is not None
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as sprite:
        assert max(sprite.size) <= 8192
