"""The page of metrics, and readers that would keep it from others."""

import gzip
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from prometheus_client import CollectorRegistry, Gauge

from convvae_service.server import metrics_page
from convvae_service.server.metrics_page import MetricsPage

LINE = b"a_gauge 3.0\n"
GET = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a page with one gauge."""
    registry = CollectorRegistry()
    Gauge("a_gauge", "A gauge", registry=registry).set(3)
    page = MetricsPage(registry, "127.0.0.1:0")
    try:
        yield page.port
    finally:
        page.close()


def ask(port: int, request: bytes) -> bytes:
    """Return the whole reply, up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as reader:
        reader.sendall(request)
        reply = b""
        with suppress(ConnectionResetError):
            while data := reader.recv(65536):
                reply += data
        return reply


def test_prometheus_reads_it(port: int) -> None:
    """By the headers that it sends, with gzip, and in the format that it prefers."""
    reply = ask(
        port,
        b"GET /metrics HTTP/1.1\r\nHost: a\r\naccept: application/openmetrics-text;version=1.0.0\r\n"
        b"Accept-Encoding: gzip\r\n\r\n",
    )
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nContent-Encoding: gzip\r\n" in head
    assert b"\r\nContent-Type: application/openmetrics-text; version=1.0.0;" in head
    assert gzip.decompress(body).endswith(LINE + b"# EOF\n")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        assert page.read().endswith(LINE)


@pytest.mark.parametrize(
    ("request_line", "status", "body"),
    [
        (b"GET / HTTP/1.0", b"200 OK", LINE),
        (b"GET /../../etc/passwd HTTP/1.1", b"200 OK", LINE),
        (b"GET /metrics?name[]=a_gauge&name[]=%ff%00 HTTP/1.1", b"200 OK", LINE),
        (b"GET /metrics?name[]=other HTTP/1.1", b"200 OK", b""),
        (b"HEAD /metrics HTTP/1.1", b"200 OK", b""),
        (b"OPTIONS * HTTP/1.1", b"200 OK", b""),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999999", b"405 Method Not Allowed", b"GET\n"),
        (b"GET /metrics", b"400 Bad Request", b""),
        (b"\x16\x03\x01\x02\x00\x01", b"400 Bad Request", b""),
        (b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1", b"200 OK", LINE),
    ],
)
def test_every_request_has_one_answer(port: int, request_line: bytes, status: bytes, body: bytes) -> None:
    """Whatever is asked, the connection ends after it."""
    head, _, page = ask(port, request_line + b"\r\nHost: a\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert page.endswith(body)
    assert bool(page) == bool(body)


def test_endless_headers_are_cut_off(port: int) -> None:
    """A request may have 16 KiB."""
    assert ask(port, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100_000) == b""
    assert LINE in ask(port, GET)


def test_readers_that_say_nothing_shut_out_nobody(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    """There are 500, some of them within a request; the next reader is served at once, in one thread."""
    threads = threading.active_count()
    with ExitStack() as opened:
        for number in range(500):
            silent = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            # It may have had to make room already.
            with suppress(ConnectionError):
                silent.sendall(b"GET / HTTP/1.1\r\nX: " if number % 2 else b"")
        began_s = time.monotonic()
        assert LINE in ask(port, GET)
        assert time.monotonic() - began_s < metrics_page._MAX_READER_S
        assert threading.active_count() == threads
    assert LINE in ask(port, GET)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("trickled", [b"", b"a"], ids=["silent", "one byte at a time"])
def test_a_slow_reader_is_dropped(port: int, monkeypatch: pytest.MonkeyPatch, trickled: bytes) -> None:
    """Its time counts from the start: a byte now and then gives it no more."""
    monkeypatch.setattr(metrics_page, "_MAX_READER_S", 0.5)
    with socket.create_connection(("127.0.0.1", port), timeout=0.1) as slow:
        began_s = time.monotonic()
        while time.monotonic() - began_s < 20:
            try:
                slow.sendall(trickled)
                if not slow.recv(1):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert 0.4 < time.monotonic() - began_s < 10


def test_a_page_that_nobody_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that asks and takes nothing keeps neither its place nor the page."""
    monkeypatch.setattr(metrics_page, "_MAX_READER_S", 0.5)
    registry = CollectorRegistry()
    gauge = Gauge("a_gauge", "A gauge", ["label"], registry=registry)
    for number in range(100_000):
        gauge.labels(f"{number:0100}").set(3)
    page = MetricsPage(registry, "127.0.0.1:0")
    try:
        lazy = socket.create_connection(("127.0.0.1", page.port), timeout=20)
        with lazy:
            lazy.sendall(GET)
            deadline_s = time.monotonic() + 20
            time.sleep(0.1)
            while page._readers and time.monotonic() < deadline_s:
                time.sleep(0.05)
            assert not page._readers
    finally:
        page.close()


def test_a_close_does_not_wait_for_readers() -> None:
    """Silent ones are dropped."""
    page = MetricsPage(CollectorRegistry(), "127.0.0.1:0")
    silent = [socket.create_connection(("127.0.0.1", page.port), timeout=20) for _ in range(10)]
    began_s = time.monotonic()
    page.close()
    assert time.monotonic() - began_s < 2
    for each in silent:
        each.close()
