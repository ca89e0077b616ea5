"""A built image, run without a Docker engine as `docker run --read-only --cap-drop ALL` runs it.

The process is number 1 of its own process namespace and sees only the image's files. Its root is read-only,
and so are the mounts that are not named as writable. It has the image's user, no capability and no way to
get one. It shares the host's network.
"""

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.ended import Ended
from support.waiting import wait_until

__all__ = ["BUILDAH", "DEVICES", "Image", "Mount", "Server", "buildah", "inspect", "serving"]

BUILDAH = Path(__file__).parents[2] / "deploy" / "buildah"
DEVICES = ("null", "zero", "full", "random", "urandom")


def buildah(*words: str | Path, timeout_s: float = 300.0) -> str:
    """Run buildah on the store of deploy/build-image, and return what it printed."""
    done = subprocess.run(
        [BUILDAH, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s
    )
    assert done.returncode == 0, f"buildah {words[0]}: {done.stderr}"
    return done.stdout.strip()


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file of the host at a path of the container."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """An image as built: its configuration, and its files, seen from outside."""

    config: dict[str, Any]
    root: Path

    def words(
        self,
        command: Sequence[str],
        mounts: Sequence[Mount] = (),
        *,
        tmpfs: Sequence[str] = (),
    ) -> list[str]:
        """Return the command line that runs `command` in a container; needs root."""
        root = shlex.quote(str(self.root))
        lines = [f"mount --bind {root} {root}", f"mount -t tmpfs -o mode=755 tmpfs {root}/dev"]
        for device in DEVICES:
            lines += [f"touch {root}/dev/{device}", f"mount --bind /dev/{device} {root}/dev/{device}"]
        lines += [f"ln -s /proc/self/fd {root}/dev/fd"]
        for mount in mounts:
            source, target = shlex.quote(str(mount.source)), f"{root}{shlex.quote(mount.target)}"
            lines += [f"mount --bind {source} {target}"]
            lines += [] if mount.writable else [f"mount -o remount,bind,ro {target}"]
        lines += [f"mount -t tmpfs -o mode=1777 tmpfs {root}{shlex.quote(folder)}" for folder in tmpfs]
        lines += [f"mount -t proc proc {root}/proc"]
        lines += [f"mount -o remount,bind,ro {folder}" for folder in (root, f"{root}/dev")]
        user, group = self.config["User"].split(":")
        process = ["chroot", str(self.root), "env", "--ignore-environment"]
        process += [f"--chdir={self.config['WorkingDir']}", *self.config["Env"]]
        process += ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"]
        process += ["--bounding-set=-all", "--inh-caps=-all", *command]
        lines += [f"exec {shlex.join(process)}"]
        unshare = ["unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--propagation=private"]
        return [*unshare, "bash", "-euc", "\n".join(lines)]

    def run(
        self, command: Sequence[str], mounts: Sequence[Mount] = (), *, timeout_s: float = 60.0, **more: Any
    ) -> Ended:
        """Run `command` to its end."""
        words = self.words(command, mounts, **more)
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s
        )
        return Ended(done.returncode, done.stdout, done.stderr)


def inspect(name: str) -> dict[str, Any]:
    """Return the configuration of an image: user, environment, command and labels."""
    config: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", name))["Docker"]["config"]
    return config


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """The service's image, serving on ports of the loopback interface."""

    process: subprocess.Popen[bytes]
    log: Path
    started_s: float

    def line(self, message: str) -> dict[str, Any]:
        """Return the last line of the log with this message, or nothing."""
        lines = self.log.read_text().splitlines(keepends=True)
        read = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
        return next((line for line in reversed(read) if line["message"] == message), {})

    @property
    def target(self) -> str:
        """Where it serves."""
        return str(self.line("serving")["address"])

    @property
    def metrics(self) -> str:
        """Where it answers Prometheus."""
        return str(self.line("serving")["metrics"])

    @property
    def pid(self) -> int:
        """The server's process, as the host counts: the only child of `unshare`."""
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text())

    def stop(self, timeout_s: float = 60.0) -> int:
        """Send SIGTERM to the server, and return its exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(timeout_s)


@contextmanager
def serving(image: Image, mounts: Sequence[Mount], log: Path, *flags: str, **more: Any) -> Iterator[Server]:
    """Start the image's own command on free ports, with more flags, and end it when the block ends."""
    command = [*image.config["Entrypoint"], *image.config["Cmd"]]
    moved = [
        "127.0.0.1:0" if before in ("--address", "--metrics-address") else word
        for before, word in zip(["", *command], command, strict=False)
    ]
    words = image.words([*moved, "--log-format", "json", *flags], mounts, **more)
    started_s = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    server = Server(process=process, log=log, started_s=started_s)
    try:
        wait_until(lambda: process.poll() is not None or bool(server.line("serving")), within_s=60)
        assert process.poll() is None, log.read_text()
        yield server
    finally:
        # The kernel ends all processes of a namespace with its first one.
        process.kill()
        process.wait(10)
