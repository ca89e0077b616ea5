"""Notices to the manager that has started the process, such as systemd with `Type=notify`."""

import contextlib
import os
import socket

__all__ = ["READY", "STOPPING", "notify_manager"]

READY, STOPPING = "READY=1", "STOPPING=1"


def notify_manager(state: str) -> None:
    """Tell the manager a state, if it has asked for that by the variable NOTIFY_SOCKET (sd_notify)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    # A manager that does not listen holds up no server.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.setblocking(False)
        notices.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
