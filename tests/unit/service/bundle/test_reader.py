import errno
import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from convvae_service.bundle import (
    BundleError,
    list_models,
    list_versions,
    read_bundle,
)
from support.tiny_bundle import LATENT_DIM, SHAPE, decoder, encoder, publish_tiny


def rewrite(folder: Path, **changes: Any) -> None:
    """Change keys of the first graph's entry in a manifest."""
    file = folder / "manifest.json"
    content = json.loads(file.read_text())
    content["graphs"][0].update(changes)
    file.write_text(json.dumps(content))


def test_a_published_version_is_read_back(version: Path) -> None:
    """Publishing and reading give the same manifest and the same graphs."""
    bundle = read_bundle(version)
    assert (bundle.manifest.model, bundle.version) == ("tiny", 1)
    assert bundle.graphs["encoder", "fp32"] == encoder(SHAPE, LATENT_DIM)
    assert bundle.graphs["decoder", "fp32"] == decoder(SHAPE, LATENT_DIM)


def test_folders_that_are_no_versions_are_passed_over(tmp_path: Path) -> None:
    """Leftovers, files, other names and folders without a manifest are not versions."""
    publish_tiny(tmp_path)
    for name in (".tmp-0123", "07", "0", "two", "5"):
        (tmp_path / "tiny" / name).mkdir()
    for name in (".tmp-0123", "07", "0", "two"):
        (tmp_path / "tiny" / name / "manifest.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert list_versions(tmp_path, "tiny") == [1]
    assert list_versions(tmp_path, "absent") == []
    assert list_models(tmp_path) == ["tiny"]


def test_a_missing_root_is_said_to_be_missing(tmp_path: Path) -> None:
    """The message names the folder, and says whether it is a file or a link to itself."""
    with pytest.raises(BundleError, match="nowhere' does not exist"):
        list_models(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="file' is not a folder"):
        list_models(tmp_path / "file")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BundleError, match="loop' cannot be read: "):
        list_models(tmp_path / "loop")


def test_a_wrong_checksum_is_refused(version: Path) -> None:
    """One flipped byte is damage."""
    data = bytearray((version / "encoder.onnx").read_bytes())
    data[-1] ^= 1
    (version / "encoder.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"encoder\.onnx is damaged: its sha256 is"):
        read_bundle(version)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_wrong_length_is_refused(version: Path, change: int) -> None:
    """A cut or grown file is refused by its length."""
    data = (version / "encoder.onnx").read_bytes()
    (version / "encoder.onnx").write_bytes(data[:-1] if change < 0 else data + b"x")
    with pytest.raises(BundleError, match=rf"encoder\.onnx has \d+ bytes, the manifest states {len(data)}"):
        read_bundle(version)


def test_a_missing_graph_is_refused(version: Path) -> None:
    """A version with a missing graph is refused, and the message names the graph."""
    (version / "decoder.onnx").unlink()
    with pytest.raises(BundleError, match=r"decoder\.onnx is missing"):
        read_bundle(version)


def test_a_missing_manifest_is_refused(version: Path) -> None:
    """A folder without a manifest is not a version."""
    (version / "manifest.json").unlink()
    with pytest.raises(BundleError, match=r"manifest\.json is missing"):
        read_bundle(version)


def test_a_link_out_of_the_folder_is_refused(version: Path, tmp_path: Path) -> None:
    """A graph that is a link to a file elsewhere is not followed."""
    outside = tmp_path / "outside.onnx"
    outside.write_bytes((version / "encoder.onnx").read_bytes())
    (version / "encoder.onnx").unlink()
    (version / "encoder.onnx").symlink_to(outside)
    with pytest.raises(BundleError, match=r"encoder\.onnx is a link that leaves its version's folder"):
        read_bundle(version)


def test_a_repository_of_links_says_how_to_copy_it(version: Path, tmp_path: Path) -> None:
    """Model hubs, DVC and git-annex keep all files elsewhere; `cp -RL` makes a version of them."""
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sorted(version.iterdir())):
        file.rename(blobs / str(number))
        file.symlink_to(os.path.relpath(blobs / str(number), version))
    root = version.parents[1]
    assert list_versions(root, "tiny") == [1]
    with pytest.raises(
        BundleError, match=r"manifest\.json is a link that leaves .*: copy the version with cp -RL"
    ):
        read_bundle(version)
    subprocess.run(["cp", "-RL", root, tmp_path / "copy"], check=True)
    assert read_bundle(tmp_path / "copy" / "tiny" / "1").version == 1


def test_folders_of_models_and_versions_may_be_links(version: Path, tmp_path: Path) -> None:
    """The operator chooses folders by links; their files are their own. Hard links are files."""
    store = tmp_path / "store"
    version.rename(store)
    version.symlink_to(store)
    model = version.parent.rename(tmp_path / "elsewhere")
    version.parent.symlink_to(model)
    os.link(store / "encoder.onnx", tmp_path / "hard.onnx")
    assert list_models(version.parents[1]) == ["tiny"]
    assert read_bundle(version).version == 1


@pytest.mark.parametrize("name", ["manifest.json", "encoder.onnx"])
def test_a_link_that_leads_nowhere_is_said(version: Path, name: str) -> None:
    """A file whose content was not fetched, and a link to itself, are faults of the version."""
    (version / name).unlink()
    (version / name).symlink_to("../../blobs/absent")
    with pytest.raises(BundleError, match=f"{name} is a link to a file that is missing"):
        read_bundle(version)
    (version / name).unlink()
    (version / name).symlink_to(name)
    assert list_versions(version.parents[1], "tiny") == [1]
    with pytest.raises(BundleError, match=f"{name} cannot be read: .*([Ll]oop|symbolic links)"):
        read_bundle(version)


def test_folders_that_are_links_to_nothing_or_to_themselves(version: Path) -> None:
    """A link to nothing is no version; one to itself is one that cannot be read; neither hides the others."""
    root = version.parents[1]
    for name in ("2", "3"):
        (version.parent / name).symlink_to("absent" if name == "2" else name)
    (root / "loop").symlink_to("loop")
    (root / "nothing").symlink_to("absent")
    assert list_models(root) == ["tiny"]
    assert list_versions(root, "tiny") == [1, 3]
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read"):
        read_bundle(version.parent / "3")


def test_a_folder_in_place_of_a_graph_is_refused(version: Path) -> None:
    """A path that is no file is refused."""
    (version / "encoder.onnx").unlink()
    (version / "encoder.onnx").mkdir()
    with pytest.raises(BundleError, match=r"encoder\.onnx is not a regular file"):
        read_bundle(version)


def test_links_within_the_folder_are_followed(version: Path) -> None:
    """Kubernetes mounts files as links into a hidden folder beside them."""
    data = version / "..2026_11_22"
    data.mkdir()
    (version / "..data").symlink_to(data.name)
    for name in ("manifest.json", "encoder.onnx", "decoder.onnx"):
        (version / name).rename(data / name)
        (version / name).symlink_to(f"..data/{name}")
    assert list_versions(version.parents[1], "tiny") == [1]
    assert read_bundle(version).version == 1


@pytest.mark.parametrize("name", ["manifest.json", "encoder.onnx"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_only_regular_files_are_read(
    version: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading does not wait for the other end of a pipe, nor for a device."""
    file = version / name
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "socket":
        # The path of a socket has at most 107 bytes.
        monkeypatch.chdir(version)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(name)
    else:
        # A device within the folder needs root; the null device is reached through a link.
        monkeypatch.setattr(Path, "is_relative_to", lambda *_: True)
        file.symlink_to(os.devnull)
    assert list_versions(version.parents[1], "tiny") == [1]
    with pytest.raises(BundleError, match=f"{name} is not a regular file"):
        read_bundle(version)


def test_a_very_large_manifest_is_refused(version: Path) -> None:
    """It is not read into memory."""
    with (version / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleError, match=r"manifest\.json is larger than 1048576 bytes"):
        read_bundle(version)


def test_a_number_that_no_float_can_hold_is_refused(version: Path) -> None:
    """It is a fault of the manifest, named by its key."""
    file = version / "manifest.json"
    content = json.loads(file.read_text())
    content["training"]["epochs"] = 10**400
    file.write_text(json.dumps(content))
    with pytest.raises(BundleError, match=r"manifest: the integer 1000\S+ has more than 64 bits"):
        read_bundle(version)


@pytest.mark.parametrize("size", [-5, 0, 2**45, 10**30])
def test_a_size_that_cannot_be_is_refused(version: Path, size: int) -> None:
    """Memory is not allocated by the length that the manifest states."""
    rewrite(version, bytes=size)
    with pytest.raises(
        BundleError,
        match=r"encoder\.onnx has \d+ bytes, the manifest|states \S+ bytes for encoder|the integer 1000",
    ):
        read_bundle(version)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_folders_that_cannot_be_read_are_passed_over(
    version: Path, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unreadable folder does not hide the models beside it, and an unreadable root is an error."""
    root = version.parents[1]
    closed = [root / "lost+found"]
    closed[0].mkdir()
    scandir = os.scandir

    # Root, who may run these tests, can read everything.
    def refuse(folder: Path) -> Any:
        if folder in closed:
            raise OSError(number, os.strerror(number))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert list_models(root) == ["tiny"]
    assert vars(caplog.records[0])["facts"] == {"folder": "lost+found", "error": os.strerror(number)}
    closed.append(root)
    with pytest.raises(BundleError, match=f"cannot be read: {os.strerror(number)}"):
        list_models(root)


def test_a_version_under_another_name_is_refused(version: Path) -> None:
    """A version in the folder of another model is refused, because it would answer for that model."""
    version.parent.rename(version.parent.with_name("other"))
    with pytest.raises(BundleError, match="manifest is of model 'tiny', its folder of 'other'"):
        read_bundle(version.parent.with_name("other") / "1")


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_a_disk_that_fails_is_no_fault_of_the_version(
    version: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error stays that of the system, so that a server tries the version again."""

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        read_bundle(version)
