"""`convvae-embed neighbors`, `duplicates` and `map`, on a result of their own."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from convvae_service.pipeline.__main__ import main
from convvae_service.pipeline.encoder_flags import EncoderFlags
from support.ended import Ended
from support.tiny_bundle import publish_tiny

Command = Callable[..., Ended]
COPY = 49


def size_of(picture: Path) -> tuple[int, int]:
    """Return width and height of a picture file."""
    with Image.open(picture) as opened:
        return opened.size


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `convvae-embed` with these words, and return how it ended."""

    def run(*words: Any) -> Ended:
        monkeypatch.setattr(sys, "argv", ["convvae-embed", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        code = caught.value.code
        assert isinstance(code, int)
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def pictures(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """50 images, of which the last is the first again."""
    images = images.copy()
    images[COPY] = images[0]
    return images


@pytest.fixture
def result(command: Command, tiny_root: Path, tmp_path: Path, pictures: NDArray[np.uint8]) -> Path:
    """Their embeddings, with thumbnails and labels."""
    np.savez(tmp_path / "x.npz", images=pictures, labels=np.arange(50) % 3)
    sink = tmp_path / "z.parquet"
    words = ("--bundle", tiny_root / "tiny", "--thumbnail", "--keep", "label")
    assert command("run", tmp_path / "x.npz", sink, *words).code == 0
    return sink


def test_neighbours_of_rows_are_the_nearest_others(command: Command, result: Path) -> None:
    """A row is not its own neighbour; an equal one is the first, at distance 0."""
    ended = command("neighbors", result, "0", "7", "--count", 5, "--json")
    assert (ended.code, ended.err) == (0, "")
    first, second = json.loads(ended.out)["images"]
    assert first["neighbors"][0] == {"id": str(COPY), "row": COPY, "distance": 0.0}
    column = pq.read_table(result).column("embedding").combine_chunks()
    vectors = np.asarray(column.flatten().to_numpy()).reshape(50, -1).astype(np.float64)
    distances = np.linalg.norm(vectors - vectors[7], axis=1)
    expected = [row for row in np.argsort(distances, kind="stable") if row != 7][:5]
    assert [each["row"] for each in second["neighbors"]] == expected
    assert "7" not in [each["id"] for each in second["neighbors"]]


def test_neighbours_of_files_are_found_with_the_bundle(
    command: Command, result: Path, tiny_root: Path, tmp_path: Path, pictures: NDArray[np.uint8]
) -> None:
    """The file is decoded and encoded as those of the result were, and the sheet shows all."""
    file, sheet = tmp_path / "seven.png", tmp_path / "sheet.png"
    Image.fromarray(pictures[7, ..., 0]).save(file)
    words = ("--bundle", tiny_root / "tiny", "--count", 3, "--sheet", sheet)
    ended = command("neighbors", result, file, *words)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[1].split()[0] == "1"
    assert ended.out.splitlines()[1].split()[2] == "7"
    assert float(ended.out.splitlines()[1].split()[1]) < 1e-5
    assert size_of(sheet)[0] > 4 * 100
    assert command("neighbors", result, file, *words).code == 2


def test_the_encoder_is_by_default_that_of_the_result(
    command: Command, result: Path, tiny_root: Path, tmp_path: Path, pictures: NDArray[np.uint8]
) -> None:
    """A version that was published since then has vectors of its own: it is taken only if it is asked for."""
    root = tmp_path / "models"
    shutil.copytree(tiny_root / "tiny", root / "tiny")
    publish_tiny(root, seed=5)
    file = tmp_path / "seven.png"
    Image.fromarray(pictures[7, ..., 0]).save(file)
    ended = command("neighbors", result, file, "--bundle", root / "tiny", "--count", 1)
    assert (ended.code, ended.out.splitlines()[1].split()[2]) == (0, "7")
    ended = command("neighbors", result, file, "--bundle", root / "tiny@2")
    assert ended.code == 2
    assert "tiny@1 in fp32, and this is another encoder, tiny@2 in fp32" in ended.err
    flags = EncoderFlags(
        target="a:1", model=None, bundle=None, device=None, precision=None, threads=None, in_flight=None
    )
    metadata = {"convvae.model": "m", "convvae.model_version": "3", "convvae.precision": "int8"}
    assert flags.like(metadata).model == "m@3"
    assert replace(flags, model="x@7").like(metadata).model == "x@7"
    local = replace(flags, target=None, bundle=Path("root/m")).like(metadata)
    assert (local.bundle, local.precision) == (Path("root/m@3"), "int8")


def test_another_encoder_is_refused(command: Command, result: Path, tmp_path: Path) -> None:
    """Vectors of two encoders cannot be compared, though the models have one name."""
    publish_tiny(tmp_path / "others", seed=5)
    Image.new("L", (6, 8)).save(tmp_path / "x.png")
    ended = command("neighbors", result, tmp_path / "x.png", "--bundle", tmp_path / "others" / "tiny")
    assert ended.code == 2
    assert "the result was encoded by tiny@1 in fp32, and this is another encoder, tiny@1" in ended.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("neighbors", "RESULT", "nobody"), "no row of the result has the id 'nobody'"),
        (("neighbors", "RESULT", "0", "--count", "0"), "--count is 0: it must be 1 to 1000"),
        (("neighbors", "RESULT", "0", "--model", "tiny"), "--model needs --target"),
        (
            ("neighbors", "RESULT", "no.png", "--bundle", "BUNDLE"),
            "'no.png': cannot be read: No such file or directory (without --bundle or",
        ),
        (("neighbors", "nothing.parquet", "0"), "'nothing.parquet' does not exist"),
        (("neighbors", "RESULT", "0", "--sheet", "x.gif"), "'x.gif' must end in .png"),
        (
            ("neighbors", "RESULT", "/", "--bundle", "BUNDLE"),
            "'/': it is not a regular file",
        ),
        (("neighbors", "RESULT", "0", "--source", "x.npz"), "--source needs --sheet"),
        (("duplicates", "RESULT", "--source", "x.npz"), "--source needs --sheet"),
        (
            ("duplicates", "RESULT", "--out", "RESULT", "--force"),
            "is of the result that is read: give another",
        ),
        (
            ("map", "RESULT", "--out", "m.png", "--by", "embedding"),
            "--by is 'embedding': the result has these",
        ),
        (
            ("map", "RESULT", "--out", "m.png", "--by", "thumbnail"),
            "--by is 'thumbnail': the result has these",
        ),
        (("duplicates", "RESULT", "--threshold", "-1"), "--threshold is -1.0: it must be 0 or more"),
        (("duplicates", "RESULT", "--threshold", "nan"), "--threshold is nan: it must be 0 or more"),
        (("duplicates", "RESULT", "--max-ratio", "nan"), "--max-ratio is nan: it must be 0 or more"),
        (
            ("duplicates", "RESULT", "--threshold", "99", "--max-pairs", "9"),
            "more than 9 pairs at most 99 apart: give a lower --th",
        ),
        (("duplicates", "RESULT", "--out", "/no/such/x.parquet"), "the folder of '/no/such/x.parquet' does"),
        (
            ("map", "RESULT", "--out", "m.png", "--by", "colour"),
            "--by is 'colour': the result has these columns for colours: id, label",
        ),
        (("map", "RESULT", "--out", "m.svg"), "'m.svg' must end in .png or .html"),
        (
            ("map", "RESULT", "--out", "m.png", "--method", "umap"),
            "--method is 'umap': it must be tsne or pca",
        ),
        (("map", "RESULT", "--out", "RESULT"), "must end in .png or .html"),
    ],
)
def test_bad_use_is_one_line(
    command: Command, result: Path, tiny_root: Path, words: tuple[str, ...], message: str
) -> None:
    """Exit code 2, before any work."""
    places = {"RESULT": str(result), "BUNDLE": str(tiny_root / "tiny")}
    ended = command(*[places.get(word, word) for word in words])
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert message in ended.err


def test_duplicates_are_a_table_and_a_sheet(command: Command, result: Path, tmp_path: Path) -> None:
    """The planted pair is the first; the table keeps the model and the threshold."""
    out, sheet = tmp_path / "pairs.parquet", tmp_path / "pairs.png"
    ended = command("duplicates", result, "--out", out, "--sheet", sheet)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[0].split() == ["0", "0", str(COPY)]
    assert "(suggested), and at most 0.5 times as far as their tenth neighbours" in ended.out.splitlines()[-1]
    table = pq.read_table(out)
    assert table.column_names == ["id", "other_id", "row", "other_row", "distance", "ratio"]
    assert table.slice(0, 1).to_pylist() == [
        {"id": "0", "other_id": str(COPY), "row": 0, "other_row": COPY, "distance": 0.0, "ratio": 0.0}
    ]
    assert table.schema.metadata[b"convvae.model"] == b"tiny"
    assert float(table.schema.metadata[b"convvae.threshold"]) > 0
    assert size_of(sheet)[0] > 200


def test_a_sheet_without_pairs_says_so(command: Command, result: Path, tmp_path: Path) -> None:
    """A sheet of an earlier search does not stay."""
    sheet = tmp_path / "pairs.png"
    Image.new("L", (900, 900)).save(sheet)
    words = ("duplicates", result, "--threshold", 1e-9, "--max-ratio", 0, "--sheet", sheet, "--force")
    ended = command(*words)
    assert ended.out.endswith(
        "1 pair of 50 rows: at most 1e-09 apart, and at most 0 times as far as their tenth neighbours\n"
    )
    two = tmp_path / "two.parquet"
    pq.write_table(pq.read_table(result).slice(1, 2), two)
    assert command("duplicates", two, "--sheet", sheet, "--force").out.startswith("0 pairs of 2 rows: ")
    assert size_of(sheet)[1] < 100


def test_small_distances_keep_their_digits(command: Command, result: Path, tmp_path: Path) -> None:
    """How large vectors are depends on the model."""
    table = pq.read_table(result)
    small = pc.multiply(table["embedding"].combine_chunks().flatten(), pa.scalar(1e-9, pa.float32()))
    column = pa.FixedSizeListArray.from_arrays(small, type=table.schema.field("embedding").type)
    pq.write_table(table.set_column(1, table.schema.field("embedding"), column), tmp_path / "small.parquet")
    words = ("7", "--count", 2, "--json")
    large = json.loads(command("neighbors", result, *words).out)["images"][0]["neighbors"]
    found = json.loads(command("neighbors", tmp_path / "small.parquet", *words).out)["images"][0]["neighbors"]
    for before, after in zip(large, found, strict=True):
        assert after["distance"] == pytest.approx(1e-9 * before["distance"], rel=1e-4)


def test_an_npy_result_is_searched_and_drawn(
    command: Command, tiny_root: Path, tmp_path: Path, pictures: NDArray[np.uint8]
) -> None:
    """It has ids and vectors; pictures come from the source, and suffixes may be in capitals."""
    np.save(tmp_path / "x.npy", pictures)
    assert command("run", tmp_path / "x.npy", tmp_path / "z.npy", "--bundle", tiny_root / "tiny").code == 0
    result, source = tmp_path / "z.npy", tmp_path / "x.npy"
    words = ("--sheet", tmp_path / "sheet.PNG", "--source", source)
    assert f"0           {COPY}" in command("neighbors", result, 0, "--count", 1, *words).out
    assert command("duplicates", result).out.startswith(f"0           0  {COPY}\n")
    assert (
        command("map", result, "--method", "pca", "--out", tmp_path / "m.HTML", "--source", source).code == 0
    )
    assert (tmp_path / "m.HTML").read_text().startswith("<!DOCTYPE html>")
    assert command("map", result, "--out", tmp_path / "m.png", "--by", "label").code == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e30])
def test_a_vector_that_cannot_be_compared_is_named(
    command: Command, result: Path, tmp_path: Path, bad: float
) -> None:
    """A damaged row is no neighbour of anything, and none is left out in silence."""
    table = pq.read_table(result)
    values = table["embedding"].combine_chunks().flatten().to_numpy().copy()
    values[17 * 4 + 2] = bad
    column = pa.FixedSizeListArray.from_arrays(pa.array(values), type=table.schema.field("embedding").type)
    spoilt = tmp_path / "spoilt.parquet"
    pq.write_table(table.set_column(1, table.schema.field("embedding"), column), spoilt)
    for words in (
        ("neighbors", spoilt, "0"),
        ("duplicates", spoilt),
        ("map", spoilt, "--out", tmp_path / "m.png"),
    ):
        ended = command(*words)
        assert ended.code == 2
        assert ended.err.startswith("error: row 17 of the result has a vector that is not finite")


def test_odd_ids_are_printed_on_one_line(command: Command, result: Path, tmp_path: Path) -> None:
    """No id writes lines of its own or acts on the terminal; JSON has it as it is."""
    table = pq.read_table(result)
    ids = pa.array([f"\x1b[31m{row}\n" for row in range(len(table))], pa.string())
    odd = tmp_path / "odd.parquet"
    pq.write_table(table.set_column(0, table.schema.field("id"), ids), odd)
    ended = command("neighbors", odd, "\x1b[31m7\n", "--count", 2, "--sheet", tmp_path / "s.png")
    assert len(ended.out.splitlines()) == 3
    assert "\x1b" not in ended.out
    assert ended.out.startswith("\\x1b[31m7\\n\n")
    assert "\x1b" not in command("duplicates", odd).out
    assert json.loads(command("duplicates", odd, "--json").out)["nearest"][0]["id"] == "\x1b[31m0\n"


def test_no_file_is_added_to_a_result_of_parts(
    command: Command, tiny_root: Path, tmp_path: Path, pictures: NDArray[np.uint8]
) -> None:
    """Readers take all Parquet files of the folder as one table."""
    np.save(tmp_path / "x.npy", pictures)
    parts = tmp_path / "z"
    assert command("run", tmp_path / "x.npy", parts, "--bundle", tiny_root / "tiny").code == 0
    ended = command("duplicates", parts, "--out", parts / "pairs.parquet")
    assert ended.code == 2
    assert "is of the result that is read: give another name" in ended.err
    ended = command(
        "duplicates", parts, "--out", tmp_path / "pairs.parquet", "--sheet", tmp_path / "pairs.png"
    )
    assert ended.code == 2
    assert "the result has no pictures: give --source" in ended.err
    assert not (tmp_path / "pairs.parquet").exists()  # refused before the work


def test_the_sheet_shows_a_file_as_the_model_sees_it_and_wraps_its_neighbours(
    command: Command, result: Path, tiny_root: Path, tmp_path: Path, pictures: NDArray[np.uint8]
) -> None:
    """A photo that the camera turned stands upright; 32 neighbours take three lines of 15."""
    sheets = []
    for name, image, orientation in (
        ("a.png", pictures[7, ..., 0], 1),
        ("b.png", np.rot90(pictures[7, ..., 0]), 6),
    ):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.ascontiguousarray(image)).save(tmp_path / name, exif=exif)
        words = ("--bundle", tiny_root / "tiny", "--count", 32, "--sheet", tmp_path / f"sheet-{name}")
        assert command("neighbors", result, tmp_path / name, *words).code == 0
        with Image.open(tmp_path / f"sheet-{name}") as sheet:
            sheets.append(np.asarray(sheet)[31 : 31 + 112, 8 : 8 + 112])
            assert sheet.height > 3 * 112
            assert sheet.width < 17 * 130
    np.testing.assert_array_equal(sheets[0], sheets[1])


def test_a_threshold_is_kept(command: Command, result: Path) -> None:
    """At 0 only equal rows are pairs."""
    summary = json.loads(command("duplicates", result, "--threshold", 0, "--json").out)
    assert summary["pairs"] == 1
    assert not summary["threshold_is_suggested"]


def test_a_given_threshold_is_the_only_limit_unless_a_ratio_is_given_too(
    command: Command, result: Path
) -> None:
    """All pairs are within a large distance; few of them are far nearer than further neighbours."""
    words = ("duplicates", result, "--threshold", 1e6, "--json")
    alone = json.loads(command(*words).out)
    assert (alone["pairs"], alone["max_ratio"]) == (50 * 49 // 2, None)
    both = json.loads(command(*words, "--max-ratio", 0.25).out)
    assert both["max_ratio"] == 0.25
    assert 1 <= both["pairs"] < alone["pairs"] / 10
    assert all(pair["ratio"] <= 0.25 for pair in both["nearest"])


def test_a_map_is_a_picture_and_a_page(command: Command, result: Path, tmp_path: Path) -> None:
    """Both at once, coloured by a kept column."""
    out = tmp_path / "m.png", tmp_path / "m.html"
    ended = command(
        "map", result, "--out", out[0], "--out", out[1], "--by", "label", "--method", "pca", "--max-rows", 20
    )
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("20 rows in ")
    assert size_of(out[0])[0] > 1000
    page = out[1].read_text()
    assert "20 of 50 rows, two main axes of tiny@1, coloured by label" in page
    assert "data:image/jpeg" in page


def test_pictures_come_from_the_source(
    command: Command, tiny_root: Path, tmp_path: Path, pictures: NDArray[np.uint8]
) -> None:
    """A result without thumbnails needs the images that it was made of; a wrong source is named."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in (0, 1, 2):
        Image.fromarray(pictures[number, ..., 0]).save(folder / f"{number}.png")
    sink, sheet = tmp_path / "z.parquet", tmp_path / "sheet.png"
    assert command("run", folder, sink, "--bundle", tiny_root / "tiny").code == 0
    words = ("neighbors", sink, "0.png", "--sheet", sheet)
    refused = command(*words)
    assert refused.code == 2
    assert "give --source with the images that it was made of" in refused.err
    assert command(*words, "--source", folder).code == 0
    assert sheet.exists()
    np.save(tmp_path / "x.npy", pictures)
    wrong = command(*words, "--force", "--source", tmp_path / "x.npy")
    assert "--source has no image with the id" in wrong.err
