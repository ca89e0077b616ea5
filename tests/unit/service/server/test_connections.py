"""The limit of connections and its watch."""

import errno
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from convvae.v1 import vae_pb2, vae_pb2_grpc
from convvae_service.server.connection_watch import ConnectionWatch, count_connections
from convvae_service.server.connections import (
    connection_limit,
    many_open_files,
    receive_limit,
    server_options,
)
from convvae_service.settings.loader import load_settings
from support.local_server import started


@pytest.mark.parametrize(
    ("wanted", "files", "limit"),
    [
        (1000, 1024, 1000),
        (1000, 1023, 991),
        (1000, resource.RLIM_INFINITY, 1000),
        (1000, 64, 32),
        (1000, 20, 1),
        (10, 64, 10),
        (0, 1024, 992),
        (0, resource.RLIM_INFINITY, 0),
    ],
)
def test_connections_fit_into_the_limit_of_open_files(
    wanted: int, files: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default fits into 1,024 files; where fewer are allowed, some stay free for other things."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert connection_limit(wanted) == limit


@pytest.mark.parametrize(("files", "many"), [(1024, 921), (60, 54), (resource.RLIM_INFINITY, 0)])
def test_many_open_files_are_nearly_all(files: int, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a limit there is no such number."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert many_open_files() == many


def test_a_front_behind_another_limits_no_connections() -> None:
    """Neither the setting nor the open files limit them, unlike those of a front of its own."""
    option = "grpc.max_allowed_incoming_connections"
    for flags in ((), ("--max-connections", "0")):
        settings = load_settings(["--models", "unused", *flags])
        assert option in dict(server_options(settings))
        assert option not in dict(server_options(settings, limits_connections=False))


def test_a_message_that_is_received_whole_fits_into_the_account() -> None:
    """It may be a little too long: the service then names the limit in its answer."""
    settings = load_settings(["--models", "unused"])
    assert receive_limit(settings) == 80 << 20
    assert 2 * receive_limit(settings) < 15 * settings.max_pending_bytes // 16


def test_connections_are_counted() -> None:
    """A socket that listens is no connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert count_connections({port}) == 0
        with socket.create_connection(("127.0.0.1", port)):
            assert count_connections({port}) == 1


def test_connections_to_a_unix_socket_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's ends have the path that was bound; those of callers have none."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as caller:
        server.bind("vae.sock")
        server.listen()
        assert count_connections({"vae.sock"}) == 0
        caller.connect("vae.sock")
        accepted, _ = server.accept()
        with accepted:
            assert count_connections({"vae.sock", 1}) == 1
            assert count_connections({"other.sock"}) == 0


def test_a_front_without_a_limit_warns_of_open_files(caplog: pytest.LogCaptureFixture) -> None:
    """All files count, not connections alone: behind the native front a caller may take three."""
    files = len(list(Path("/dev/fd").iterdir()))
    ConnectionWatch(ends={1}, limit=files + 20, refuses=False).look_once()
    assert caplog.messages == []
    ConnectionWatch(ends={1}, limit=files - 5, refuses=False).look_once()
    assert caplog.messages == [
        "open files are nearly used up: connections may have to wait, raise their limit (ulimit -n)"
    ]


def test_the_log_says_it_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The reason is in the line: as many as allowed, or no file left."""
    monkeypatch.setattr("convvae_service.server.connection_watch.count_connections", lambda _: 3)
    watch = ConnectionWatch(ends={1}, limit=3)
    watch.look_once()
    assert caplog.messages == ["the limit of connections is reached: others are refused"]
    caplog.clear()
    ConnectionWatch(ends={1}, limit=100_000).look_once()
    assert caplog.messages == []

    def refuse(_: Path) -> Iterator[Path]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Path, "iterdir", refuse)
    watch.look_once()
    assert caplog.messages == ["connections wait: the process cannot open another file"]


async def test_as_many_calls_as_allowed_are_never_reset(tiny_root: Path) -> None:
    """A caller that keeps to the limit of a connection, always at the limit, loses no call."""
    flags = ("--front", "grpcio", "--max-calls-per-connection", "10")
    async with started(tiny_root, *flags) as (_, address), grpc.aio.insecure_channel(address) as channel:
        stub = vae_pb2_grpc.VaeServiceStub(channel)
        for _ in range(10):
            calls = [stub.Sample(vae_pb2.SampleRequest(count=1), timeout=30) for _ in range(50)]
            assert {await call.code() for call in calls} == {grpc.StatusCode.OK}
