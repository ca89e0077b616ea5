import errno
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from convvae.program.exit_codes import ExitCode
from convvae_service.bundle import ImageShape, read_bundle
from convvae_service.engine.stages import Engine
from convvae_service.images import decode_file
from convvae_service.pipeline.atomic_file import AtomicFile
from support.ended import Ended
from support.idx_file import idx_bytes
from support.tar_file import write_tar
from support.tiny_bundle import TINY_INPUT, publish_tiny

Embed = Callable[..., Ended]


def vectors(path: Path, column: str = "embedding") -> NDArray[np.float32]:
    array = pq.read_table(path).column(column).combine_chunks()
    return np.asarray(array.flatten().to_numpy()).reshape(len(array), -1)


@pytest.fixture
def engine(tiny_root: Path) -> Engine:
    """Return what the engine of `tiny` computes when it is called directly."""
    return Engine(read_bundle(tiny_root / "tiny" / "1"), device="cpu")


@pytest.fixture
def source(tmp_path: Path, images: NDArray[np.uint8]) -> Path:
    """50 images as an .npy file."""
    np.save(tmp_path / "x.npy", images)
    return tmp_path / "x.npy"


@pytest.mark.parametrize("kind", ["x.npy", "x.npz", "small.npz", "floats.npy", "x.idx", "x.idx.gz"])
def test_arrays_are_embedded_as_the_engine_does(
    kind: str, embed: Embed, tiny_root: Path, tmp_path: Path, images: NDArray[np.uint8], engine: Engine
) -> None:
    """Every kind of array file gives the same vectors, in order."""
    import gzip

    path, sink = tmp_path / kind, tmp_path / "z.parquet"
    match kind:
        case "x.npz":
            np.savez(path, images=images, labels=np.arange(50))
        case "small.npz":
            np.savez_compressed(path, anything=images[..., 0])
        case "floats.npy":
            np.save(path, (images / 255).astype(np.float32))
        case "x.npy":
            np.save(path, images)
        case "x.idx":
            path.write_bytes(idx_bytes(images[..., 0]))
        case _:
            path.write_bytes(gzip.compress(idx_bytes(images[..., 0])))
    words = ["--bundle", tiny_root / "tiny", "--batch-rows", 7, "--log-variance", "--device", "cpu"]
    ended = embed(path, sink, *words)
    assert (ended.code, ended.err) == (0, "")
    mean, log_variance = engine.encode.run((images,))
    assert pq.read_table(sink).column("id").to_pylist() == [str(row) for row in range(50)]
    np.testing.assert_allclose(vectors(sink), mean, atol=1e-6)
    np.testing.assert_allclose(vectors(sink, "log_variance"), log_variance, atol=1e-6)


def test_files_are_embedded_as_the_engine_does(
    embed: Embed, tiny_root: Path, tmp_path: Path, folder: Path, engine: Engine
) -> None:
    """Files of any size are resized by the bundle's rule; ids are their paths."""
    sink = tmp_path / "z.parquet"
    assert embed(folder, sink, "--bundle", tiny_root / "tiny" / "1", "--batch-rows", 5).code == 0
    table = pq.read_table(sink)
    assert table.column_names == ["id", "embedding"]
    ids = table.column("id").to_pylist()
    assert ids == sorted(ids)
    assert len(ids) == 12
    pixels = [
        decode_file((folder / i).read_bytes(), shape=TINY_INPUT.shape, resize=TINY_INPUT.resize) for i in ids
    ]
    np.testing.assert_allclose(vectors(sink), engine.encode.run((np.stack(pixels),))[0], atol=1e-6)


def test_summary_is_one_line_or_json(embed: Embed, tiny_root: Path, tmp_path: Path, source: Path) -> None:
    """The summary has rows, time, skipped rows, the model, the file and its size."""
    sink = tmp_path / "z.parquet"
    words = [source, sink, "--bundle", tiny_root / "tiny"]
    line = embed(*words).out
    assert line.startswith("50 rows in ")
    assert f"0 skipped, by tiny@1 fp32: {sink}" in line
    assert line.count("\n") == 1
    summary = json.loads(embed(*words, "--force", "--json").out)
    assert summary["rows"] == 50
    assert summary["bytes"] == sink.stat().st_size
    assert (summary["model"], summary["version"], summary["precision"]) == ("tiny", 1, "fp32")
    assert (summary["skipped"], summary["skipped_rows"]) == (0, [])


def test_highest_version_is_taken_and_named(
    embed: Embed, zoo_root: Path, tmp_path: Path, source: Path
) -> None:
    """A version may be named, and the metadata contain it."""
    newest, first = tmp_path / "newest.parquet", tmp_path / "first.parquet"
    assert embed(source, newest, "--bundle", zoo_root / "tiny").code == 0
    assert embed(source, first, "--bundle", zoo_root / "tiny" / "1").code == 0
    versions = [pq.read_schema(path).metadata[b"convvae.model_version"] for path in (newest, first)]
    hashes = [pq.read_schema(path).metadata[b"convvae.encoder_sha256"] for path in (newest, first)]
    assert versions == [b"2", b"1"]
    bundle = read_bundle(zoo_root / "tiny" / "2")
    assert hashes[0].decode() in [graph.sha256 for graph in bundle.manifest.graphs if graph.role == "encoder"]
    assert hashes[0] != hashes[1]


def test_broken_files_are_skipped_on_request(
    embed: Embed, tiny_root: Path, tmp_path: Path, folder: Path
) -> None:
    """Skipped files are counted and listed, and are not in the sink."""
    (folder / "class-1" / "04.png").write_bytes(b"no image")
    sink = tmp_path / "z.parquet"
    words = [folder, sink, "--bundle", tiny_root / "tiny"]
    failed = embed(*words)
    assert (failed.code, failed.err) == (
        2,
        "error: class-1/04.png: not a JPEG, PNG or WebP image (--on-error skip leaves such files out)\n",
    )
    assert not sink.exists()
    ended = embed(*words, "--on-error", "skip")
    assert (ended.code, ended.err) == (
        0,
        "skipped class-1/04.png: not a JPEG, PNG or WebP image\nleft out: 2 hidden, 1 .csv\n",
    )
    assert "11 rows" in ended.out
    assert "1 skipped" in ended.out
    assert pq.read_metadata(sink).metadata[b"convvae.skipped"] == b"1"
    assert "class-1/04.png" not in pq.read_table(sink).column("id").to_pylist()
    failed = pq.read_table(tmp_path / "z.failed.parquet")
    assert failed.to_pylist() == [{"id": "class-1/04.png", "reason": "not a JPEG, PNG or WebP image"}]


BUNDLE = ["--bundle", "{root}/tiny"]
RAY = ("--engine", "ray")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{x}", "{z}"], "give either --target HOST:PORT or --bundle ROOT/MODEL"),
        (["{x}", "{z}", *BUNDLE, "--target", "localhost:1"], "give either --target HOST:PORT or --bundle"),
        (["{x}", "{z}", *BUNDLE, "--model", "tiny"], "--model needs --target"),
        (["{x}", "{z}", "--target", "localhost:1", "--device", "cpu"], "--device needs --bundle"),
        (
            ["{x}", "{z}", "--bundle", "absent", "--device", "foo"],
            "--device is 'foo': it must be auto, cpu, cuda or cuda:N",
        ),
        (["{x}", "{z}", *BUNDLE, "--on-error", "fail"], "--on-error is 'fail': it must be stop, skip or"),
        (["{x}", "{z}", *BUNDLE, "--on-error", "9" * 5000], "--on-error is '999"),
        (["{tmp}/bad", "{z}", *BUNDLE, "--on-error", "skip"], "none of the 1 images of bad can be read"),
        (["{x}", "{z}", *BUNDLE, "--part-rows", "0"], "--part-rows is 0: it must be 1 to"),
        (["{x}", "{z}", *BUNDLE, "--keep", "id"], "--keep cannot have 'id': the result has a column"),
        (["{x}", "{z}", *BUNDLE, "--keep", "a,b,a"], "--keep cannot have 'a': it is named twice"),
        (["{x}", "{z}", *BUNDLE, "--keep", "a"], "x.npy has no column 'a' to keep: it has no columns"),
        (["{x}", "{z}", *BUNDLE, "--where", "a == 1"], "--where needs Parquet files, and x.npy is"),
        (["{x}", "{z}", *BUNDLE, "--resume"], "z.parquet is one file, which is written as a whole: --resume"),
        (["{x}", "{tmp}/y", *BUNDLE, "--resume", "--force"], "--resume and --force exclude"),
        (["{x}", "{tmp}/empty.npy", *BUNDLE], "empty.npy' exists: give --force to"),
        (["{x}", "{tmp}/x", *BUNDLE], "x' has other files and no result: give another name"),
        (["{x}", "{tmp}/z.npy", *BUNDLE, "--score"], "z.npy holds ids and vectors alone: give a"),
        (["{x}", "{z}", *BUNDLE, "--batch-rows", "0"], "--batch-rows is 0: it must be 1 to 65536"),
        (["{x}", "{z}", *BUNDLE, "--threads", "-1"], "--threads is -1: it must be 1 to 1024"),
        (["{x}", "{tmp}/z.csv", *BUNDLE], "z.csv is not a sink: its name must end in .parquet"),
        (["{x}", "{tmp}/gone/z.parquet", *BUNDLE], "gone' of the sink does not exist"),
        (["{x}", "{tmp}/link.parquet", *BUNDLE], "link.parquet' is a link to a file that does not exist"),
        (["{x}", "{tmp}/old.parquet", *BUNDLE], "old.failed.parquet' exists: give --force to replace it"),
        (["{x}", "{tmp}/odd.npy", *BUNDLE], "odd.failed.parquet' is not a regular file: give another name"),
        (["{x}", "{x}", *BUNDLE, "--force"], "x.npy' is a source, and the run would replace it"),
        (["", "{z}", *BUNDLE], "a source is an empty text: give a path, such as . for this folder"),
        (["{x}", "{tmp}/taken.parquet", *BUNDLE], "taken.parquet' exists: give --force to replace it"),
        (["{tmp}/gone", "{z}", *BUNDLE], "gone' does not exist"),
        (["{tmp}/x.gif", "{z}", *BUNDLE], "x.gif is not a source: give a folder of images, or a tar archive"),
        (["{tmp}/empty", "{z}", *BUNDLE], "no images in"),
        (["{tmp}/empty.npy", "{z}", *BUNDLE], "empty.npy has no images: its shape is (0, 8, 6, 1)"),
        (["{tmp}/large.npy", "{z}", *BUNDLE], "large.npy has images of 28x28x1, model 'tiny' takes 8x6x1"),
        (["{tmp}/counts.npy", "{z}", *BUNDLE], "counts.npy has the type int32: images must be uint8"),
        (["{tmp}/range.npy", "{z}", *BUNDLE], "range.npy[3] has values from 2 to 2"),
        (["{tmp}/torn.npz", "{z}", *BUNDLE], "torn.npz is not an .npz file, or is damaged"),
        (["{tmp}/torn.idx", "{z}", *BUNDLE], "torn.idx is truncated: 50x8x6 values need 2400 bytes"),
        (["{x}", "{z}", "--bundle", "{root}/unknown"], "unknown': there is "),
        (["{x}", "{z}", "--bundle", "{root}/tiny/7"], "tiny' has no version '7': it has 1, 2"),
        (["{x}", "{z}", "--bundle", "{root}/tiny@7"], "tiny' has no version '7': it has 1, 2"),
        (["{x}", "{z}", "--bundle", "{root}"], "no model is published at"),
        (["{x}", "{z}", *BUNDLE, "--precision", "int8"], "has no int8 graphs: it has fp32"),
        (["{x}", "{z}", "--bundle", "{root}/plain", "--log-variance"], "'plain' has no log-variance"),
        (["{x}", "{z}", "--bundle", "{root}/plain", "--score"], "'plain' has no log-variance: omit --score"),
        (["{x}", "{z}", *BUNDLE, "--engine", "dask"], "--engine is 'dask': it must be local or ray"),
        (["{x}", "{z}", *BUNDLE, "--workers", "2"], "--workers needs --engine ray"),
        (["{x}", "{z}", *BUNDLE, "--ray-address", "auto"], "--ray-address needs --engine ray"),
        (["{x}", "{z}", *BUNDLE, *RAY, "--workers", "0"], "--workers is 0: it must be 1 to 10000"),
        (["{x}", "{z}", *BUNDLE, *RAY, "--device", "cuda:1"], "Ray assigns the GPUs: give --device cuda"),
        (["{x}", "{z}", *BUNDLE, *RAY, "--ray-address", "a b"], "--ray-address is 'a b': it must be auto"),
        (["{x}", "{z}", *BUNDLE, *RAY, "--ray-address", "ray://a:1"], "Ray's client at ray://a:1 runs no"),
        (["{x}", "{z}", "--target", "127.0.0.1:1", *RAY], "--engine ray needs --bundle: its workers encode"),
        (["{x}", "{z}", "--target", "127.0.0.1:1", "--model", "a b"], "model is 'a b'; write NAME"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    words: list[str],
    message: str,
    embed: Embed,
    zoo_root: Path,
    tmp_path: Path,
    source: Path,
    images: NDArray[np.uint8],
) -> None:
    """Wrong input ends with exit code 2, one line that says what to change, and no file."""
    (tmp_path / "taken.parquet").write_bytes(b"old")
    (tmp_path / "old.failed.parquet").write_bytes(b"old")
    (tmp_path / "odd.failed.parquet").mkdir()
    (tmp_path / "link.parquet").symlink_to("nowhere.parquet")
    (tmp_path / "x.gif").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").touch()
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "notes.txt").touch()
    np.save(tmp_path / "empty.npy", images[:0])
    np.save(tmp_path / "large.npy", np.zeros((2, 28, 28), np.uint8))
    np.save(tmp_path / "counts.npy", images.astype(np.int32))
    np.save(tmp_path / "range.npy", np.where(np.arange(50) == 3, 2.0, 0.5)[:, None, None] * np.ones((8, 6)))
    archive = io.BytesIO()
    np.savez(archive, images=images)
    (tmp_path / "torn.npz").write_bytes(archive.getvalue()[:-40])
    (tmp_path / "torn.idx").write_bytes(idx_bytes(images[..., 0])[:-1])
    before = sorted(tmp_path.iterdir())
    places = {"x": source, "z": tmp_path / "z.parquet", "tmp": tmp_path, "root": zoo_root}
    ended = embed(*(word.format_map(places) for word in words))
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert message in ended.err
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "taken.parquet").read_bytes() == b"old"
    assert len(np.load(source)) == 50


def test_a_result_that_is_read_is_not_replaced(
    embed: Embed, tiny_root: Path, tmp_path: Path, source: Path
) -> None:
    """--force would remove the folder before its pictures are read."""
    sink = tmp_path / "z"
    words = ["--bundle", tiny_root / "tiny"]
    assert embed(source, sink, *words, "--thumbnail").code == 0
    (tmp_path / "link").symlink_to(sink)
    for text in (f"{sink}/*.parquet", f"{tmp_path}/link/part-00000.parquet"):
        ended = embed(text, sink, *words, "--force")
        assert ended.code == 2
        assert "part-00000.parquet' is a source, and the run would replace it: give another sink" in ended.err
    assert embed(f"{sink}/*.parquet", tmp_path / "again.parquet", *words).code == 0
    np.testing.assert_allclose(vectors(tmp_path / "again.parquet"), vectors(sink), atol=1e-6)


def test_condition_that_no_row_meets_is_named(
    embed: Embed, tiny_root: Path, tmp_path: Path, folder: Path
) -> None:
    """The images are not missing."""
    image = (folder / "class-0" / "00.png").read_bytes()
    pq.write_table(pa.table({"image": [image], "label": [1]}), tmp_path / "x.parquet")
    words = [tmp_path / "x.parquet", tmp_path / "z.parquet", "--bundle", tiny_root / "tiny"]
    ended = embed(*words, "--where", "label == 2")
    assert (ended.code, ended.err) == (2, "error: no rows of x.parquet meet --where\n")


def test_column_without_values_is_named(embed: Embed, tiny_root: Path, tmp_path: Path, folder: Path) -> None:
    """A wrong letter in --keep does not stay unseen."""
    image = (folder / "class-0" / "00.png").read_bytes()
    path = write_tar(tmp_path / "x.tar", [("0.png", image), ("0.cls", b"3"), ("1.png", image)])
    words = [path, tmp_path / "z.parquet", "--bundle", tiny_root / "tiny", "--keep", "cls,lable"]
    assert "without a value in all rows: lable\n" in embed(*words).err
    summary = json.loads(embed(*words, "--force", "--json").out)
    assert summary["empty_columns"] == ["lable"]
    assert pq.read_table(tmp_path / "z.parquet")["cls"].to_pylist() == [3, None]


@pytest.mark.parametrize("name", ["z.parquet", "z.npy"])
@pytest.mark.parametrize("replaces", [False, True])
def test_a_run_that_fails_at_its_end_changes_no_file(
    replaces: bool,
    name: str,
    embed: Embed,
    tiny_root: Path,
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full disk at its last file leaves no table of failed images, or with --force that of before."""
    (folder / "class-1" / "04.png").write_bytes(b"no image")
    words = [folder, tmp_path / name, "--bundle", tiny_root / "tiny", "--on-error", "skip"]
    if replaces:
        assert embed(*words).code == 0
        (folder / "class-1" / "05.png").write_bytes(b"no image")
        words.append("--force")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert len(before) == (2 + (name == "z.npy") if replaces else 0)
    sync = AtomicFile.sync

    def refuse(self: AtomicFile) -> None:
        if self.path.name.startswith(f".{name}."):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(self)

    monkeypatch.setattr(AtomicFile, "sync", refuse)
    ended = embed(*words)
    assert ended.code == 1
    assert ended.err.endswith(f"error: {name} cannot be written: No space left on device\n")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("name", ["z.parquet", "z.npy"])
def test_a_file_that_appears_during_the_run_stands_alone(
    name: str, embed: Embed, tiny_root: Path, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is kept, and no table of failed images or ids of this run is put beside it."""
    (folder / "class-1" / "04.png").write_bytes(b"no image")
    sync = AtomicFile.sync

    def sync_late(self: AtomicFile) -> None:
        (tmp_path / name).write_bytes(b"of another program")
        sync(self)

    monkeypatch.setattr(AtomicFile, "sync", sync_late)
    ended = embed(folder, tmp_path / name, "--bundle", tiny_root / "tiny", "--on-error", "skip")
    assert ended.code == 1
    assert "was created by another program during the run and was kept" in ended.err
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [name]
    assert (tmp_path / name).read_bytes() == b"of another program"


def test_colour_files_become_grey_where_the_model_is(
    embed: Embed, tiny_root: Path, tmp_path: Path, folder: Path
) -> None:
    """Files are converted to the model's channels, arrays are not."""
    from PIL import Image

    Image.new("RGB", (9, 9), "red").save(folder / "red.png")
    assert embed(folder, tmp_path / "z.parquet", "--bundle", tiny_root / "tiny").code == 0
    np.save(tmp_path / "colour.npy", np.zeros((2, 8, 6, 3), np.uint8))
    ended = embed(tmp_path / "colour.npy", tmp_path / "y.parquet", "--bundle", tiny_root / "tiny")
    assert "has images of 8x6x3, model 'tiny' takes 8x6x1" in ended.err


@pytest.mark.parametrize(
    ("package", "message"),
    [
        ("pyarrow", "pyarrow is not installed: pip install 'convvae[pipeline]'"),
        ("onnxruntime", "ONNX Runtime is not installed: pip install 'convvae[service,gpu]'"),
    ],
)
def test_missing_extra_is_named(
    package: str,
    message: str,
    embed: Embed,
    tiny_root: Path,
    tmp_path: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The message names the extra to install."""
    monkeypatch.setitem(sys.modules, package, None)
    ended = embed(source, tmp_path / "z.parquet", "--bundle", tiny_root / "tiny")
    assert ended.code == 2
    assert ended.err.startswith(f"error: {message}")


def test_damaged_bundle_is_refused(embed: Embed, tmp_path: Path, source: Path) -> None:
    """A graph that differs from its manifest is never run."""
    version = publish_tiny(tmp_path / "models", shape=ImageShape(height=8, width=6, channels=1))
    with (version / "encoder.onnx").open("r+b") as file:
        file.write(b"\xff")
    ended = embed(source, tmp_path / "z.parquet", "--bundle", tmp_path / "models" / "tiny")
    assert ended.code == 2
    assert ended.err.startswith("error: bundle tiny/1: encoder.onnx is damaged: its sha256 is")


def test_what_the_system_refuses_is_one_line(embed: Embed, tmp_path: Path, source: Path) -> None:
    """An error of the operating system has no traceback, and is found before any work."""
    ended = embed(source, tmp_path / ("n" * 300 + ".parquet"), "--target", "localhost:1")
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert ended.err.endswith(".parquet' cannot be written: File name too long\n")


def test_missing_argument_is_wrong_use(embed: Any) -> None:
    """The checks of the command line itself also end with exit code 2."""
    assert embed("x.npy").code == 2


def test_a_service_that_does_not_answer_is_told_apart(embed: Embed, tmp_path: Path, source: Path) -> None:
    """Exit code 3 says that the same command may succeed later; no file is left."""
    ended = embed(source, tmp_path / "z.parquet", "--target", "127.0.0.1:1")
    assert ended.code == ExitCode.NO_ANSWER
    assert ended.err.startswith("error: 127.0.0.1:1: ")
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "z.parquet").exists()


def test_help_says_every_default(embed: Embed) -> None:
    """The help text contains every default, and brackets are not read as markup."""
    shown = " ".join(embed("--help").out.replace("│", " ").split())
    for text in (
        "(default: its only model)",
        "256 with --target)",
    ):
        assert text in shown
