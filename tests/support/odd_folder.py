"""A folder with entries that are not regular image files."""

import os
import socket
from pathlib import Path

__all__ = ["LEFT_OUT", "add_odd_entries"]

# The counts of what `add_odd_entries` adds, as words.
LEFT_OUT = (
    "left out: 3 not regular files, 2 .tif, 2 hidden, 1 .gif, 1 links to folders, 2 of other kinds"
    " (fifo.png, link.png, socket.jpg)"
)


def add_odd_entries(folder: Path) -> None:
    """Add a FIFO, a socket, links, hidden files and files of other kinds."""
    os.mkfifo(folder / "fifo.png")
    (folder / "link.png").symlink_to("fifo.png")
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(folder)  # the address of a socket is at most 108 bytes
        try:
            listener.bind("socket.jpg")
        finally:
            os.chdir(before)
    for name in (".hidden.png", "a.tif", "b.TIF", "c.gif", "README", "name.with.a-long-suffix"):
        (folder / name).touch()
    (folder / ".cache").mkdir()
    (folder / "elsewhere").symlink_to(folder, target_is_directory=True)
