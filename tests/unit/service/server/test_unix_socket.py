"""A Unix socket takes a free path or that of a dead server, and removes only itself."""

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from convvae_service.server.unix_socket import UnixSocket

PATH = Path("vae.sock")
TAKEN = r"^another program listens there$"


def names() -> list[str]:
    """The names in the working folder."""
    return [found.name for found in Path().iterdir()]


@pytest.fixture
def listeners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """The sockets that listen; the working folder is empty."""
    monkeypatch.chdir(tmp_path)
    opened: list[socket.socket] = []
    yield opened
    for each in opened:
        each.close()


@pytest.fixture
def bind(listeners: list[socket.socket]) -> Callable[[str], int]:
    """Listens as gRPC does."""

    def listen(target: str) -> int:
        opened = socket.socket(socket.AF_UNIX)
        listeners.append(opened)
        opened.bind(target.removeprefix("unix:"))
        opened.listen()
        return 1

    return listen


def test_it_is_shown_with_its_permissions_and_nothing_else(bind: Callable[[str], int]) -> None:
    """The folder has the socket alone, whatever the process's mask is."""
    before = os.umask(0o077)
    try:
        UnixSocket(PATH, 0o666).open(bind)
    finally:
        os.umask(before)
    assert names() == [PATH.name]
    assert stat.S_IMODE(PATH.stat().st_mode) == 0o666
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(PATH))


def test_a_live_socket_is_kept(bind: Callable[[str], int]) -> None:
    """Its path is taken, and it is still there when the one that came too late is closed."""
    UnixSocket(PATH, 0o660).open(bind)
    late = UnixSocket(PATH, 0o660)
    with pytest.raises(OSError, match=TAKEN):
        late.open(bind)
    late.close()
    assert names() == [PATH.name]


def test_a_server_whose_queue_is_full_is_alive(
    listeners: list[socket.socket], bind: Callable[[str], int]
) -> None:
    """It accepts nobody for the moment, and is no dead one."""
    listeners.append(socket.socket(socket.AF_UNIX))
    listeners[0].bind(str(PATH))
    listeners[0].listen(0)
    for _ in range(2):
        caller = socket.socket(socket.AF_UNIX)
        caller.setblocking(False)
        listeners.append(caller)
        try:
            caller.connect(str(PATH))
        except BlockingIOError:
            break
    with pytest.raises(OSError, match=TAKEN):
        UnixSocket(PATH, 0o660).open(bind)


def test_a_dead_socket_is_replaced_and_removed_at_the_end(
    listeners: list[socket.socket], bind: Callable[[str], int]
) -> None:
    """The file of a killed server is in nobody's way."""
    UnixSocket(PATH, 0o660).open(bind)
    listeners[0].close()
    own = UnixSocket(PATH, 0o660)
    own.open(bind)
    assert names() == [PATH.name]
    own.close()
    own.close()
    assert names() == []


def test_the_socket_of_another_server_is_not_removed(
    listeners: list[socket.socket], bind: Callable[[str], int]
) -> None:
    """A server that drains removes nothing of the one that has taken its path."""
    first = UnixSocket(PATH, 0o660)
    first.open(bind)
    listeners[0].close()
    UnixSocket(PATH, 0o660).open(bind)
    first.close()
    assert PATH.is_socket()


def test_two_servers_that_find_a_dead_socket_do_not_share_the_path(
    bind: Callable[[str], int], listeners: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that comes later, between the look of the other and its change, keeps the path."""
    UnixSocket(PATH, 0o660).open(bind)
    listeners[0].close()
    rename = Path.rename

    def overtaken(path: Path, to: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        UnixSocket(PATH, 0o660).open(bind)
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", overtaken)
    with pytest.raises(OSError, match=TAKEN):
        UnixSocket(PATH, 0o660).open(bind)
    assert names() == [PATH.name]
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(PATH))


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_kept(kind: str, bind: Callable[[str], int]) -> None:
    """A wrong path costs nobody a file."""
    if kind == "file":
        PATH.write_text("mine")
    elif kind == "folder":
        PATH.mkdir()
    else:
        PATH.symlink_to("nowhere")
    with pytest.raises(OSError, match=r"^a file is there that is no socket$"):
        UnixSocket(PATH, 0o660).open(bind)
    assert names() == [PATH.name]


def test_a_folder_that_cannot_be_used_is_named(
    bind: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is in the message: it is missing, or it may not be written."""
    with pytest.raises(OSError, match=r"^there is no folder 'absent'$"):
        UnixSocket(Path("absent/vae.sock"), 0o660).open(bind)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(OSError, match=r"^this user may not write to the folder '\.'$"):
        UnixSocket(PATH, 0o660).open(bind)
