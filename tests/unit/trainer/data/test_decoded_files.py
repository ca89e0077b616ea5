"""Files that are decoded ahead: the images are those of one file after the other."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convvae_service.bundle import ImageShape, Resize
from convvae_service.images import decode_file, decoding_processes
from convvae_trainer.data import decoded_files as module
from convvae_trainer.data.folder import read_folder
from convvae_trainer.errors import BadData

CUT = 40  # bytes at the end of a damaged file


def write(
    path: Path, number: int, *, mode: str = "L", size: tuple[int, int] = (9, 8), cut: bool = False
) -> None:
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    if cut:
        path.write_bytes(path.read_bytes()[:-CUT])


@pytest.mark.parametrize("group_files", [1, 3, 64])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_the_images_are_those_of_one_file_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_files: int, channels: int | None
) -> None:
    """Grey, colour and damaged files are mixed, in groups of any size."""
    monkeypatch.setattr(module, "_GROUP_FILES", group_files)
    for number in range(40):
        mode = "RGB" if number in (17, 18, 30) else "L"
        write(
            tmp_path / f"{number:02}.png", number, mode=mode, size=(9 + number, 8), cut=number in (0, 5, 18)
        )
    found = read_folder(tmp_path, image_size=(8, 6), resize=Resize(), channels=channels, skip=True)
    good = [number for number in range(40) if number not in (0, 5, 18)]
    assert found.paths == [f"{number:02}.png" for number in good]
    assert [text.split()[0].rpartition("/")[2] for text in found.skipped] == ["00.png", "05.png", "18.png"]
    shape = ImageShape(height=8, width=6, channels=channels or 3)
    alone = [
        decode_file((tmp_path / path).read_bytes(), shape=shape, resize=Resize()) for path in found.paths
    ]
    np.testing.assert_array_equal(found.images, alone)
    assert found.sizes == "8x10 to 8x48"


def test_a_damaged_file_in_colour_colours_nothing(tmp_path: Path) -> None:
    """Only pictures that are used decide on the channels."""
    for number in range(9):
        write(tmp_path / f"{number}.png", number, mode="RGB" if number == 4 else "L", cut=number == 4)
    images, paths, note, *_ = read_folder(tmp_path, image_size=None, resize=Resize(), skip=True)
    assert images.shape == (8, 8, 9, 1)
    assert "4.png" not in paths
    assert note == "1 of 9 files cannot be used and were skipped"


def test_the_first_file_of_another_size_is_named(tmp_path: Path) -> None:
    """The error is that of the earliest such file, and nothing is left running."""
    for number in range(200):
        size = (9, 8) if number not in (150, 170) else (7, 7)
        write(tmp_path / f"{number:03}.png", number, size=size, cut=number == 20)
    before = threading.active_count()
    with pytest.raises(BadData, match=r"000\.png is 8x9, .*150\.png is 7x7; give --image-size"):
        read_folder(tmp_path, image_size=None, resize=Resize())
    assert threading.active_count() == before


def test_processes_decode_a_folder_as_threads_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once processes have started, images and faults are the same."""
    for number in range(300):
        write(tmp_path / f"{number:03}.jpg", number, mode="RGB" if number % 7 else "L", cut=number == 250)
    with_threads = read_folder(tmp_path, image_size=(8, 8), resize=Resize(), skip=True)
    started = []
    begin = decoding_processes.DecodingProcesses.__enter__

    def begin_now(processes: decoding_processes.DecodingProcesses) -> decoding_processes.DecodingProcesses:
        processes._count = processes._missing = 2
        processes.start()
        started.extend(processes.pids)
        return begin(processes)

    monkeypatch.setattr(decoding_processes.DecodingProcesses, "__enter__", begin_now)
    with_processes = read_folder(tmp_path, image_size=(8, 8), resize=Resize(), skip=True)
    np.testing.assert_array_equal(with_processes.images, with_threads.images)
    assert with_processes[1:] == with_threads[1:]
    assert len(with_threads.skipped) == 1
    assert len(started) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)


@pytest.mark.parametrize(("size", "is_one"), [((9, 8), True), ((100, 100), False)])
def test_small_files_are_read_by_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], is_one: bool
) -> None:
    """Several would hand Python's lock to each other. Larger files are decoded on all CPUs."""
    for number in range(200):
        write(tmp_path / f"{number:03}.png", number, size=size)
    threads = set()

    def read(path: str) -> bytes:
        threads.add(threading.get_ident())
        time.sleep(0.001)
        return Path(path).read_bytes()

    monkeypatch.setattr(module, "available_cpus", lambda: 2)
    monkeypatch.setattr(module, "read_file", read)
    names = [f"{number:03}.png" for number in range(200)]
    shape = ImageShape(height=8, width=9, channels=1)
    rules = module.FileRules(shape=shape, may_widen=False, resize=Resize(), max_pixels=10_000)
    assert len(list(module.decoded_files(tmp_path, names, rules))) == 200
    assert (len(threads) == 1) is is_one
