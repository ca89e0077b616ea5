"""A server tells its manager when it serves and when it stops, as `Type=notify` of systemd wants."""

import socket
from pathlib import Path

import pytest

from support.serving import serving


@pytest.mark.parametrize("form", ["path", "abstract"])
def test_the_manager_hears_of_the_start_and_the_stop(
    tiny_root: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """READY comes when calls are answered, STOPPING when the drain begins, and no other notice."""
    monkeypatch.chdir(tmp_path)
    path = f"/tmp/{tmp_path.name}-{tmp_path.stat().st_ino}.notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.settimeout(20)
        try:
            notices.bind(path if form == "path" else f"\0{path}")
            variable = path if form == "path" else f"@{path}"
            with serving(tiny_root, environ={"NOTIFY_SOCKET": variable}) as server:
                assert notices.recv(100) == b"READY=1"
                assert server.stop() == 0
            assert notices.recv(100) == b"STOPPING=1"
            notices.setblocking(False)
            with pytest.raises(BlockingIOError):
                notices.recv(100)
        finally:
            Path(path).unlink(missing_ok=True)


@pytest.mark.parametrize("variable", ["/nowhere/notify", "@nobody", "vsock:1:2", ""])
def test_a_manager_that_does_not_listen_holds_up_nobody(tiny_root: Path, variable: str) -> None:
    """The server serves and stops as without one."""
    with serving(tiny_root, environ={"NOTIFY_SOCKET": variable}) as server:
        assert server.stop() == 0
