"""Results in parts: what a run leaves, how it is continued, and what is refused."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from convvae_service.pipeline import sink_kinds
from convvae_service.pipeline.journal import JOURNAL_FILE, Journal, PartRecord
from convvae_service.pipeline.result import BadResult, open_result, vectors
from support.ended import Ended
from support.tar_file import write_tar
from support.tiny_bundle import publish_tiny

Embed = Callable[..., Ended]


@pytest.fixture
def archive(folder: Path, tmp_path: Path) -> Path:
    """12 images, a file that is none, and a text, in a tar archive."""
    paths = sorted(folder.rglob("class-*/[0-9]*.*"))
    members = [(str(path.relative_to(folder)), path.read_bytes()) for path in paths]
    members[4:4] = [("broken.png", b"no image"), ("notes.txt", b"text")]
    return write_tar(tmp_path / "x.tar", members)


@pytest.fixture
def words(archive: Path, tmp_path: Path, tiny_root: Path) -> list[Any]:
    """A run of the archive to the folder `z`, in parts of 5 images."""
    return [archive, tmp_path / "z", "--bundle", tiny_root / "tiny", "--part-rows", 5, "--on-error", "skip"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stop_after(folder: Path, parts: int) -> None:
    """Bring a complete result into the state of a run that was killed after so many parts."""
    lines = (folder / JOURNAL_FILE).read_bytes().splitlines(keepends=True)
    (folder / JOURNAL_FILE).write_bytes(b"".join(lines[: 1 + parts]))
    (folder / "_result.json").unlink()


def test_parts_hold_equal_numbers_of_images(embed: Embed, words: list[Any], tmp_path: Path) -> None:
    """Failed images count, are in a table of their own, and all readers see one table of rows."""
    ended = embed(*words, "--json")
    assert ended.code == 0
    assert ended.err == "skipped broken: not a JPEG, PNG or WebP image\nleft out: 1 .txt\n"
    summary = json.loads(ended.out)
    assert (summary["rows"], summary["resumed"], summary["skipped"]) == (12, 0, 1)
    result = tmp_path / "z"
    parts = sorted(path.name for path in result.glob("*.parquet"))
    assert [pq.read_metadata(result / part).num_rows for part in parts] == [4, 5, 3]
    assert pq.read_table(result / "_failed" / parts[0]).to_pylist() == [
        {"id": "broken", "reason": "not a JPEG, PNG or WebP image"}
    ]
    described = json.loads((result / "_result.json").read_text())
    assert (described["rows"], described["failed"], described["left_out"]) == (12, 1, {".txt": 1})
    opened = open_result(result)
    assert opened.rows == pq.read_table(result).num_rows == 12
    assert opened.metadata["convvae.model_version"] == "1"
    stacked = np.concatenate([vectors(batch) for batch in opened.batches(["embedding"], rows=2)])
    column = pq.read_table(result).column("embedding").combine_chunks()
    np.testing.assert_array_equal(stacked, column.flatten().to_numpy().reshape(12, -1))


@pytest.mark.parametrize("parts", [0, 1, 2, 3])
def test_resumed_run_equals_an_undisturbed_one(
    parts: int, embed: Embed, words: list[Any], tmp_path: Path
) -> None:
    """Byte by byte, wherever it was stopped, also if its last line or last part is torn."""
    result = tmp_path / "z"
    assert embed(*words).code == 0
    whole = contents(result)
    stop_after(result, parts)
    with (result / JOURNAL_FILE).open("ab") as journal:
        journal.write(b'{"part":"part-00009.parq')
    (result / f".part-{parts:05}.parquet.0123456789ab.unfinished").write_bytes(b"half")
    ended = embed(*words, "--resume", "--json")
    assert ended.code == 0, ended.err
    summary = json.loads(ended.out)
    assert (summary["rows"], summary["skipped"]) == (12, 1)
    assert summary["resumed"] == [0, 4, 9, 12][parts]
    assert summary["left_out"] == {".txt": 1}
    assert contents(result) == whole


def test_run_that_stops_keeps_its_parts(
    embed: Embed, words: list[Any], archive: Path, tmp_path: Path
) -> None:
    """The message says how many rows are kept, and another policy continues after them."""
    words = words[:-2]
    ended = embed(*words, "--part-rows", 4)
    assert ended.code == 2
    assert ended.err == (
        "error: broken: not a JPEG, PNG or WebP image (--on-error skip leaves such files out);"
        " 4 rows in 1 part are kept: --resume continues\n"
    )
    with pytest.raises(BadResult, match=r"is not a complete result: finish it with convvae-embed run"):
        open_result(tmp_path / "z")
    ended = embed(*words, "--part-rows", 4, "--resume", "--on-error", "1")
    assert ended.code == 0
    assert "8 rows in " in ended.out
    assert "after 4 resumed, 1 skipped" in ended.out
    assert open_result(tmp_path / "z").rows == 12


def test_existing_result_is_not_touched_without_a_flag(
    embed: Embed, words: list[Any], tmp_path: Path
) -> None:
    """--resume of a complete result does nothing, and --force begins anew."""
    result = tmp_path / "z"
    assert embed(*words).code == 0
    whole = contents(result)
    ended = embed(*words)
    assert ended.code == 2
    assert "z' exists: give --resume to continue it, or --force to replace it" in ended.err
    ended = embed(*words, "--resume")
    assert (ended.code, contents(result)) == (0, whole)
    assert ended.out.startswith("0 rows in ")
    assert "after 12 resumed" in ended.out
    assert embed(*words, "--force", "--float16").code == 0
    assert pq.read_schema(result / "part-00000.parquet").field("embedding").type.value_type == "halffloat"
    (result / "mine.txt").touch()
    before = contents(result)
    ended = embed(*words, "--force")
    assert ended.code == 2
    assert "is not a result of convvae-embed alone: it has 'mine.txt'" in ended.err
    assert contents(result) == before


def test_a_replaced_result_leaves_nothing(
    embed: Embed, words: list[Any], folder: Path, tmp_path: Path
) -> None:
    """Fewer parts without failed images take the place of more parts with some, and what a kill has left."""
    assert embed(*words).code == 0
    (tmp_path / "z" / "_failed" / ".part-00000.parquet.0123456789ab.unfinished").touch()
    alone = write_tar(tmp_path / "one.tar", [("a.png", next(folder.glob("class-0/*.png")).read_bytes())])
    assert embed(alone, *words[1:], "--force").code == 0
    names = sorted(path.name for path in (tmp_path / "z").iterdir())
    assert names == [JOURNAL_FILE, "_result.json", "part-00000.parquet"]


def test_a_result_that_is_being_written_is_not_replaced(
    embed: Embed, words: list[Any], tmp_path: Path
) -> None:
    """--force during another run would give rows of two encoders."""
    assert embed(*words).code == 0
    before = contents(tmp_path / "z")
    with closing(Journal(tmp_path / "z")):
        ended = embed(*words, "--force")
    assert (ended.code, ended.err) == (2, "error: another run is writing z\n")
    assert contents(tmp_path / "z") == before


def test_a_result_that_is_replaced_during_the_run_is_left_alone(
    embed: Embed, words: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After somebody has removed the folder, the run writes nothing into what stands there now."""
    result, add = tmp_path / "z", Journal.add

    def add_and_replace(self: Journal, record: PartRecord) -> None:
        add(self, record)
        shutil.rmtree(result)
        result.mkdir()
        (result / JOURNAL_FILE).write_text("of another run")

    monkeypatch.setattr(Journal, "add", add_and_replace)
    ended = embed(*words)
    assert ended.code == 1
    assert ended.err == "error: z was removed or replaced by another program during the run\n"
    assert contents(result) == {JOURNAL_FILE: b"of another run"}


def test_other_encoder_is_refused(embed: Embed, words: list[Any], tmp_path: Path) -> None:
    """Latent spaces are never mixed: the message names both versions."""
    root = tmp_path / "models"
    publish_tiny(root)
    words[3] = root / "tiny"
    assert embed(*words).code == 0
    stop_after(tmp_path / "z", 1)
    before = contents(tmp_path / "z")
    publish_tiny(root, seed=1)
    ended = embed(*words, "--resume")
    assert ended.code == 2
    assert "error: z was begun with tiny@1 fp32 (encoder " in ended.err
    assert "and this run has tiny@2 fp32 (encoder " in ended.err
    assert contents(tmp_path / "z") == before
    words[3] = root / "tiny" / "1"
    assert embed(*words, "--resume").code == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--part-rows", 6], "z belongs to another job: its --part-rows is 5, where this run has 6"),
        (["--log-variance"], "its columns is [], where this run has ['log_variance']"),
        (["--keep", "txt"], "its --keep is [], where this run has ['txt']"),
    ],
)
def test_other_job_is_refused(
    more: list[Any], message: str, embed: Embed, words: list[Any], tmp_path: Path
) -> None:
    """Settings that make other rows are named."""
    assert embed(*words).code == 0
    stop_after(tmp_path / "z", 1)
    ended = embed(*words, *more, "--resume")
    assert ended.code == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1


def test_other_source_is_refused(embed: Embed, words: list[Any], archive: Path, tmp_path: Path) -> None:
    """Another name, and the same name with other contents."""
    assert embed(*words).code == 0
    stop_after(tmp_path / "z", 1)
    os.utime(archive, (1, 1))
    ended = embed(*words, "--resume")
    assert ended.code == 2
    assert "error: x.tar has changed since z was begun: give --force to start anew" in ended.err
    other = archive.rename(tmp_path / "y.tar")
    ended = embed(other, *words[1:], "--resume")
    assert ended.code == 2
    assert "z belongs to another job: its source is x.tar, where this run has y.tar" in ended.err


@pytest.mark.parametrize("spoil", ["missing", "shorter"])
def test_part_that_is_missing_is_refused(spoil: str, embed: Embed, words: list[Any], tmp_path: Path) -> None:
    """A part of the journal must be there, with its size."""
    assert embed(*words).code == 0
    stop_after(tmp_path / "z", 2)
    part = tmp_path / "z" / "part-00001.parquet"
    if spoil == "missing":
        part.unlink()
    else:
        os.truncate(part, 10)
    ended = embed(*words, "--resume")
    assert ended.code == 2
    state = "is missing" if spoil == "missing" else "has another size"
    assert f"z/part-00001.parquet {state}, so the result cannot be continued" in ended.err


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        (1, b'"end"', b'"'),
        (1, b'"rows":4', b'"rows":"4"'),
        (1, b'"rows":4', b'"rows":-4'),
        (1, b"part-00000", b"part-00007"),
        (2, b'"end":[0,10]', b'"end":[0,5]'),
        (3, b'"end":[1,0]', b'"end":[9,0]'),
        (2, b'{"part"', b'\0\xff{"part"'),
        (0, b'"shards":[[', b'"shards":[[7],['),
        (0, b'{"journal":1,', b'{"journal":1,"other":2,'),
        (0, b'{"journal":1', b"[1"),
    ],
)
def test_damaged_journal_is_refused(
    line: int, old: bytes, new: bytes, embed: Embed, words: list[Any], tmp_path: Path
) -> None:
    """A whole line that is none of this program is no torn line; --force starts anew."""
    assert embed(*words).code == 0
    whole = contents(tmp_path / "z")
    journal = tmp_path / "z" / JOURNAL_FILE
    lines = journal.read_bytes().splitlines(keepends=True)
    assert old in lines[line]
    lines[line] = lines[line].replace(old, new)
    journal.write_bytes(b"".join(lines))
    ended = embed(*words, "--resume")
    assert ended.code == 2
    assert ended.err == f"error: z/{JOURNAL_FILE} is damaged: give --force to start anew\n"
    assert embed(*words, "--force").code == 0
    assert contents(tmp_path / "z") == whole


def test_part_with_other_bytes_is_one_line(embed: Embed, words: list[Any], tmp_path: Path) -> None:
    """A disk may have spoilt a part without changing its size: the run ends before it is called complete."""
    assert embed(*words).code == 0
    stop_after(tmp_path / "z", 2)
    part = tmp_path / "z" / "part-00001.parquet"
    part.write_bytes(bytes(part.stat().st_size))
    ended = embed(*words, "--resume")
    assert ended.code == 1
    assert ended.err.startswith("error: part-00001.parquet cannot be read again: ")
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "z" / "_result.json").exists()


def test_result_that_appears_meanwhile_is_not_continued(
    embed: Embed, words: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the first check and the start, another run may write the whole folder."""
    assert embed(*words).code == 0
    whole = contents(tmp_path / "z")
    monkeypatch.setattr(sink_kinds, "check_sink", lambda *_, **__: None)
    ended = embed(*words)
    assert (ended.code, ended.err) == (2, "error: z was written by another run meanwhile\n")
    assert contents(tmp_path / "z") == whole


def test_ids_of_several_shards_are_compared(
    embed: Embed, words: list[Any], archive: Path, tmp_path: Path
) -> None:
    """An id that two shards have is reported at the end, and both rows are there."""
    (tmp_path / "y.tar").write_bytes(archive.read_bytes())
    ended = embed(*[archive, tmp_path / "y.tar", *words[1:]])
    assert ended.code == 0
    assert "repeated ids: 12, such as class-0/00" in ended.err
    described = json.loads((tmp_path / "z" / "_result.json").read_text())
    assert described["duplicate_ids"]["count"] == 12
    assert described["left_out"] == {".txt": 2}


def test_ids_of_one_file_are_compared(embed: Embed, words: list[Any], tmp_path: Path) -> None:
    """Rows of a Parquet file with a column of ids may repeat one."""
    image = next((tmp_path / "pictures").rglob("class-*/*.png")).read_bytes()
    pq.write_table(pa.table({"image": [image] * 3, "key": ["a", "b", "a"]}), tmp_path / "k.parquet")
    ended = embed(tmp_path / "k.parquet", tmp_path / "z.parquet", *words[2:4], "--id-column", "key")
    assert (ended.code, ended.err) == (0, "repeated ids: 1, such as a\n")


def test_archive_without_images_is_refused(embed: Embed, words: list[Any], tmp_path: Path) -> None:
    """The message says what there is instead."""
    words[0] = write_tar(tmp_path / "w.tar", [("a.txt", b"x"), ("b.gif", b"x")])
    ended = embed(*words)
    assert ended.code == 2
    assert "no images in w.tar; left out: 1 .gif, 1 .txt" in ended.err
    assert not list((tmp_path / "z").glob("*.parquet"))


def test_vectors_and_ids_in_two_plain_files(
    embed: Embed, words: list[Any], tmp_path: Path, images: NDArray[np.uint8]
) -> None:
    """An .npy sink has the vectors of the Parquet file, and its ids and metadata as JSON."""
    np.save(tmp_path / "i.npy", images)
    for sink in ("a.npy", "a.parquet"):
        assert embed(tmp_path / "i.npy", tmp_path / sink, *words[2:4]).code == 0
    column = pq.read_table(tmp_path / "a.parquet").column("embedding").combine_chunks()
    array = np.load(tmp_path / "a.npy")
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, column.flatten().to_numpy().reshape(50, -1))
    beside = json.loads((tmp_path / "a.json").read_text())
    assert beside["ids"] == [str(row) for row in range(50)]
    assert beside["metadata"]["convvae.rows"] == "50"
    assert beside["metadata"]["convvae.encoder_sha256"]
    ended = embed(tmp_path / "i.npy", tmp_path / "a.npy", *words[2:4])
    assert "a.npy' exists: give --force to replace it" in ended.err


def test_elbo_terms_are_those_of_the_engine(
    embed: Embed, words: list[Any], tmp_path: Path, tiny_root: Path, images: NDArray[np.uint8]
) -> None:
    """Elbo = -(distortion + rate), at the posterior mean; thumbnails are the pixels that were encoded."""
    import io

    from PIL import Image

    from convvae_service.bundle import rate, read_bundle
    from convvae_service.engine.stages import Engine

    np.save(tmp_path / "i.npy", images)
    assert embed(tmp_path / "i.npy", tmp_path / "z", *words[2:4], "--score", "--thumbnail").code == 0
    table = pq.read_table(tmp_path / "z")
    engine = Engine(read_bundle(tiny_root / "tiny" / "1"), device="cpu")
    mean, log_variance = engine.encode.run((images,))
    (distortion,) = engine.distort.run((mean, images))
    np.testing.assert_allclose(table.column("distortion").to_numpy(), distortion, rtol=1e-5)
    np.testing.assert_allclose(table.column("rate").to_numpy(), rate(mean, log_variance), rtol=1e-5)
    np.testing.assert_allclose(
        table.column("elbo").to_numpy(), -(distortion + rate(mean, log_variance)), rtol=1e-5
    )
    for row in (0, 49):
        picture = Image.open(io.BytesIO(table.column("thumbnail")[row]["bytes"].as_py()))
        np.testing.assert_array_equal(np.asarray(picture), images[row, ..., 0])
