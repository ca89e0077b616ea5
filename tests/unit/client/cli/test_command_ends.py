"""How the command `convvae` ends: signals, outputs and inputs that fail, servers that do not answer."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.intermediary import intermediary, plain_answer
from support.spoilt_servicer import Servicer, serving

# Each test starts programs.
pytestmark = pytest.mark.slow

ENVIRON = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
WORDS = ("-m", "convvae")


def start(*words: object, target: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Start one command."""
    command = [sys.executable, *WORDS, *map(str, words), "--target", target]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=ENVIRON
    )


def run(*words: object, target: str, cwd: Path, shell: str = "") -> tuple[int, str]:
    """Run one command to its end, after a command of the shell. Return its exit code and standard error."""
    encoded = [os.fsencode(str(word)) for word in words]
    command: list[str | bytes] = [sys.executable, *WORDS, *encoded, "--target", target]
    done = subprocess.run(
        # Not with `preexec_fn`: this process has a server of gRPC, which a fork would disturb.
        ["/bin/sh", "-c", f'{shell}\nexec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=ENVIRON,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(("number", "delay_s"), list(zip(SIGNALS, [0.05, 0.1, 0.2], strict=True)))
def test_a_signal_during_the_start_is_one_line(
    number: signal.Signals, delay_s: float, target: str, servicer: Servicer, tmp_path: Path
) -> None:
    """While modules are loaded, there is no traceback."""
    # A fast machine has loaded all before the signal: the call then waits for it.
    servicer.delay_s = 30.0
    process = start("sample", "--out", "x.npy", target=target, cwd=tmp_path)
    loaded = Path(f"/proc/{process.pid}/maps")
    deadline_s = time.monotonic() + 20
    # Python itself is up when it has loaded an extension module of the standard library.
    while "lib-dynload" not in loaded.read_text() and time.monotonic() < deadline_s:
        time.sleep(0.005)
    time.sleep(delay_s)
    process.send_signal(number)
    _, text = process.communicate(timeout=30)
    assert (process.returncode, text) == (128 + number, f"error: interrupted by {number.name}\n")


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_during_a_call_leaves_nothing(
    number: signal.Signals, target: str, servicer: Servicer, tmp_path: Path
) -> None:
    """The command ends at once, by one line, and makes neither the output nor its folders."""
    servicer.delay_s = 30.0
    process = start("sample", "--out", "deep/er/pictures", target=target, cwd=tmp_path)
    deadline_s = time.monotonic() + 20
    while servicer.count("Sample") == 0 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    process.send_signal(number)
    _, text = process.communicate(timeout=10)
    assert (process.returncode, text) == (128 + number, f"error: interrupted by {number.name}\n")
    assert list(tmp_path.iterdir()) == []


def test_an_ignored_hangup_stays_ignored(target: str, servicer: Servicer, tmp_path: Path) -> None:
    """Under `nohup`, the end of the terminal does not end the command."""
    servicer.delay_s = 1.0
    command = [sys.executable, *WORDS, "sample", "--out", "x.npy", "--target", target]
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    deadline_s = time.monotonic() + 20
    while servicer.count("Sample") == 0 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 0
    assert (tmp_path / "x.npy").exists()


@pytest.mark.parametrize(
    ("output", "reason", "words"),
    [
        ("pipe", "the reader of standard output ended before the text did", ("models",)),
        ("pipe", "the reader of standard output ended before the text did", ("sample", "--out", "x.npy")),
        ("full", "standard output: No space left on device", ("models", "--json")),
        ("full", "standard output: No space left on device", ("score", "x.png")),
        ("closed", "standard output is closed", ("models",)),
    ],
)
def test_an_output_that_cannot_be_written_is_one_line(
    output: str, reason: str, words: tuple[str, ...], target: str, tmp_path: Path
) -> None:
    """A reader that ended, a full disk and a closed output are named, without a traceback."""
    Image.new("L", (3, 4)).save(tmp_path / "x.png")
    command = [sys.executable, *WORDS, *words, "--target", target]
    read, write = os.pipe()
    os.close(read)
    with Path("/dev/full").open("wb") as full:
        stdout = {"pipe": write, "full": full.fileno(), "closed": None}[output]
        process = subprocess.Popen(
            ["/bin/sh", "-c", 'exec "$@"' + (" >&-" if output == "closed" else ""), "sh", *command],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=ENVIRON,
        )
        _, text = process.communicate(timeout=60)
    os.close(write)
    assert (process.returncode, text) == (1, f"error: {reason}\n")


# No file may be longer than 0 bytes.
FULL_DISK = "ulimit -f 0"


@pytest.mark.parametrize("out", ["z.npy", "z.npz", "z.png", "deep/er/pictures"])
def test_a_full_disk_leaves_nothing(out: str, target: str, tmp_path: Path) -> None:
    """The error names the output as it was given, and no temporary file or folder stays."""
    code, text = run("sample", "-n", 20, "--out", out, target=target, cwd=tmp_path, shell=FULL_DISK)
    assert (code, text) == (1, f"error: cannot write {out}: File too large\n")
    assert list(tmp_path.iterdir()) == []


AS_NOBODY = """
import os, sys
from pathlib import Path
from convvae.cli.outputs import Output
from convvae.errors import InvalidInput
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    Output.at(Path(sys.argv[1]), forms=("npy", "folder"), force=False)
except InvalidInput as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["z.npy", "pictures", "deep/er/pictures"])
def test_a_folder_without_permission_is_named_before_the_call(name: str, tmp_path: Path) -> None:
    """A folder that cannot be written is refused by its name, before anything is computed."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    for each in (tmp_path, *tmp_path.parents):
        if each.stat().st_uid == os.getuid():
            each.chmod(each.stat().st_mode | 0o055)
    out = folder / name
    command = [sys.executable, "-c", AS_NOBODY, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == f"cannot write {out}: folder {folder} is not writable\n"


def test_a_folder_in_which_nobody_can_write_is_one_line(target: str, tmp_path: Path) -> None:
    """Where only the attempt shows it, the error names the output."""
    code, text = run("sample", "--out", "/proc/z.npy", target=target, cwd=tmp_path)
    assert code == 1
    assert text.startswith("error: cannot write /proc/z.npy: ")
    assert text.count("\n") == 1


def test_only_regular_files_are_read_and_the_rest_is_counted(target: str, tmp_path: Path) -> None:
    """A folder's FIFO is never opened; names with escape codes and raw bytes are written as escapes."""
    folder = tmp_path / "d"
    (folder / os.fsdecode(b"a\xe9")).mkdir(parents=True)
    odd = folder / os.fsdecode(b"a\xe9") / "\x1b[31m\n.jfif"
    for path in (folder / "0.png", odd):
        Image.new("L", (3, 4)).save(path, "PNG")
    (folder / "notes.txt").touch()
    (folder / "scan.tif").touch()
    (folder / ".hidden.png").touch()
    os.mkfifo(folder / "z.png")
    # The address of a socket is at most 108 bytes.
    with socket.socket(socket.AF_UNIX) as listening, chdir(folder):
        listening.bind("s.png")
        (folder / "more").symlink_to("/usr")
        code, text = run("encode", "d", "--out", "z.npy", target=target, cwd=tmp_path)
    assert (code, text) == (
        0,
        "left out: 2 not regular files, 1 .tif, 1 .txt, 1 hidden, 1 links to folders\n",
    )
    assert np.load(tmp_path / "z.npy").shape == (2, 2)
    odd.write_bytes(b"")
    code, text = run("encode", "d", "--out", "y.npy", target=target, cwd=tmp_path)
    assert code == 2
    assert text.endswith("error: d/a\\xe9/\\x1b[31m\\n.jfif: the file is empty\n")


def test_inputs_that_are_no_image_files_have_their_true_reason(target: str, tmp_path: Path) -> None:
    """An empty file, a pointer of Git LFS, a FIFO, a link to nowhere and odd names are one line each."""
    (tmp_path / "empty.png").touch()
    (tmp_path / "lfs.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    for name in ("fifo.png", "fifo.npy"):
        os.mkfifo(tmp_path / name)
    for name, reason in {
        "empty.png": "empty.png: the file is empty",
        "lfs.png": "lfs.png: the file is a pointer of Git LFS, not the image: run `git lfs pull`",
        "gone.png": "gone.png does not exist (a broken link)",
        "fifo.png": "fifo.png is not a regular file",
        "fifo.npy": "fifo.npy is not a regular file",
        "\x1b]0;x\x07.png": r"\x1b]0;x\x07.png does not exist",
        os.fsdecode(b"\xff.png"): r"\xff.png does not exist",
    }.items():
        assert run("encode", name, "--out", "z.npy", target=target, cwd=tmp_path) == (2, f"error: {reason}\n")
    assert not (tmp_path / "z.npy").exists()


@pytest.mark.parametrize("kind", ["silent", "resets", "http", "refused", "tls", "name"])
def test_health_says_soon_what_is_wrong(kind: str, tmp_path: Path) -> None:
    """A server that accepts connections without an answer, another kind of server, and none at all."""
    listening = socket.create_server(("127.0.0.1", 0))
    target = f"127.0.0.1:{listening.getsockname()[1]}"
    options: tuple[str, ...] = ()
    start_s = time.monotonic()
    with listening:
        if kind == "silent":
            words = "no answer in time; the server may be overloaded or at its limit of connections"
            code, text = run("health", target=target, cwd=tmp_path)
        elif kind == "resets":
            words = "the connection was closed before an answer; if the server uses TLS, pass --tls"
            process = start("health", target=target)
            while process.poll() is None and time.monotonic() - start_s < 20:
                if select.select([listening], [], [], 0.05)[0]:
                    listening.accept()[0].close()
            code, text = process.wait(10), process.communicate()[1]
        elif kind == "http":
            words = "another kind of server answered, such as HTTP/1, not a convvae server; check the port"
            with intermediary(plain_answer(b"no")) as (target, _):
                code, text = run("health", target=target, cwd=tmp_path)
        elif kind == "tls":
            words, options = "the server does not use TLS on this port; leave out --tls, or check", ("--tls",)
            with serving(Servicer()) as target:
                code, text = run("health", *options, target=target, cwd=tmp_path)
        else:
            listening.close()
            target = target if kind == "refused" else "nobody.invalid:5"
            words = "connection refused: no" if kind == "refused" else "the name is not found"
            code, text = run("health", target=target, cwd=tmp_path)
    assert time.monotonic() - start_s < 15
    assert code == 3
    assert text.startswith(f"error: {target}: {words}")
    assert text.count("\n") == 1
