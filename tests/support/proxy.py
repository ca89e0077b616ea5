"""Proxies of others in front of replicas: nginx and HAProxy, each as docs/load-balancing.md sets it up."""

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.waiting import wait_until

__all__ = ["PROXIES", "configuration", "proxied"]

DOCUMENT = Path(__file__).parents[2] / "docs" / "load-balancing.md"
# The program of each proxy, and how it is told its configuration.
PROXIES = {"nginx": ("nginx", "-g", "daemon off;", "-c"), "haproxy": ("haproxy", "-db", "-f")}
# Debian has both there, and not every user's PATH has it.
FOLDERS = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
# The replicas and the port in the document.
REPLICAS = ("10.0.0.1:50051", "10.0.0.2:50051")
LISTEN = "0.0.0.0:8443"


def program(proxy: str) -> str | None:
    """Return the path of a proxy's program, None where it is not installed."""
    return shutil.which(PROXIES[proxy][0], path=FOLDERS)


def configuration(proxy: str) -> str:
    """Return the configuration of a proxy as the document has it."""
    _, _, rest = DOCUMENT.read_text().partition(f"```{proxy}\n")
    text, end, _ = rest.partition("```\n")
    assert end, f"{DOCUMENT.name} has no configuration of {proxy}"
    return text


@contextmanager
def proxied(proxy: str, replicas: Sequence[str]) -> Iterator[str]:
    """Run a proxy in front of two replicas, HOST:PORT or unix:PATH, and yield its address."""
    path = program(proxy)
    assert path is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    text = configuration(proxy).replace(LISTEN, address)
    for shown, replica in zip(REPLICAS, replicas, strict=True):
        assert shown in text
        text = text.replace(shown, replica)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{proxy}.cfg"
        file.write_text(text.replace("/run/nginx.pid", f"{folder}/nginx.pid"))
        words = [path, *PROXIES[proxy][1:], str(file)]
        with (Path(folder) / "log").open("w+") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log)
            try:
                wait_until(lambda: _takes_connections(address) or process.poll() is not None)
                log.seek(0)
                assert process.poll() is None, log.read()
                yield address
            finally:
                process.terminate()
                process.wait(20)


def _takes_connections(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True
