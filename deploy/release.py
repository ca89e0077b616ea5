"""`make release`: builds wheel and sdist into dist/, checks their contents, installs the wheel and calls it.

For each form of the wheel, dist/ gets a bill of materials (`.cdx.json`): see `deploy/sbom.py`.

Each form of the wheel is installed in a new virtual environment in a temporary folder. The server of the form
`service,cpu` listens on the loopback interface and is called with the installed client. `--forms` chooses the
forms. `trainer,cpu` is not a default one, since its packages take some GB. Without it, this program's own
Python imports every module of the trainer from the wheel.
"""

import argparse
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from deploy.archives import check_sdist, check_wheel, read_sdist, read_wheel
from deploy.commands import ReleaseError, clean_environ, run
from deploy.sbom import SbomTool, unlicensed

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
GOLDEN = ROOT / "tests" / "golden" / "schema-1"
BUILD_S, INSTALL_S, COMMAND_S = 600, 1800, 120
TOLERANCE = 1e-5

IMPORT_ALL = """
import importlib, pathlib, pkgutil, sys
import convvae_trainer
folder = pathlib.Path(sys.argv[1]).resolve()
assert pathlib.Path(convvae_trainer.__file__).is_relative_to(folder), convvae_trainer.__file__
names = [module.name for module in pkgutil.walk_packages(convvae_trainer.__path__, "convvae_trainer.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names), "modules of the trainer can be imported from the wheel")
"""


class Environment:
    """A new virtual environment with one form of the wheel."""

    def __init__(self, folder: Path, wheel: Path, extras: str) -> None:
        """Create the environment in `folder`, and install the wheel with `extras`, such as `service,cpu`."""
        self.folder = folder
        venv.create(folder / "venv", with_pip=True)
        self._bin = folder / "venv" / "bin"
        self.python = self._bin / "python"
        requirement = f"{wheel}[{extras}]" if extras else str(wheel)
        self.run("python", "-m", "pip", "install", "--quiet", requirement, timeout_s=INSTALL_S)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a program of the environment; its output goes to `server.log` in the folder."""
        with (self.folder / "server.log").open("w") as log:
            return subprocess.Popen(self._command(words), cwd=self.folder, env=clean_environ(), stderr=log)

    def run(self, *words: str, timeout_s: float = COMMAND_S) -> str:
        """Run a program of the environment and return its output.

        Raises:
            ReleaseError: It failed, or took longer than `timeout_s` seconds.
        """
        return run(self._command(words), cwd=self.folder, timeout_s=timeout_s)

    def _command(self, words: tuple[str, ...]) -> list[str]:
        return [str(self._bin / words[0]), *words[1:]]


def build() -> tuple[Path, Path]:
    """Build the sdist, and the wheel from it; return (wheel, sdist)."""
    shutil.rmtree(DIST, ignore_errors=True)
    run([sys.executable, "-m", "build", "--outdir", str(DIST)], cwd=ROOT, timeout_s=BUILD_S)
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    return wheel, sdist


def check_contents(wheel: Path, sdist: Path) -> None:
    """Raise `ReleaseError` unless both archives are complete and clean and the changelog has the version."""
    tracked = set(run(["git", "ls-files"], cwd=ROOT, timeout_s=COMMAND_S).splitlines())
    faults = check_wheel(read_wheel(wheel), tracked, root=ROOT)
    faults += check_sdist(read_sdist(sdist), tracked, root=ROOT)
    version = wheel.name.split("-")[1]
    if not re.search(rf"^## {re.escape(version)}$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE):
        faults.append(f"CHANGELOG.md has no section {version}")
    if faults:
        raise ReleaseError("\n".join(faults))


def check_client(environment: Environment) -> None:
    """Import the client, and see that it brings neither ONNX Runtime nor torch nor pyarrow."""
    code = "import sys, convvae, importlib.util as u; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    found = environment.run("python", "-c", code, "onnxruntime", "torch", "pyarrow").strip()
    if found != "[]":
        raise ReleaseError(f"the client's environment has {found}")
    environment.run("convvae", "--help")


def check_service(environment: Environment) -> None:
    """Start a server of the golden bundle, call it with the installed client, and stop it."""
    np.save(environment.folder / "images.npy", _golden("images"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    flags = (
        "--models",
        str(GOLDEN),
        "--address",
        address,
        "--metrics-address",
        "off",
        "--drain-delay-s",
        "0",
    )
    server = environment.start("convvae-serve", *flags)
    try:
        target = ("--target", address)
        environment.run("convvae", "health", "--wait", "60", *target)
        if "golden" not in environment.run("convvae", "models", "--json", *target):
            raise ReleaseError("the server does not list the model 'golden'")
        environment.run("convvae", "encode", "images.npy", "--out", "latents.npy", *target)
        server.terminate()
        code = server.wait(COMMAND_S)
    except ReleaseError as error:
        log = (environment.folder / "server.log").read_text()
        raise ReleaseError(f"{error}\nthe server's log:\n{log}") from None
    finally:
        server.kill()
        server.wait()
    if code != 0:
        raise ReleaseError(f"the server ended with exit code {code}")
    latents = np.load(environment.folder / "latents.npy", allow_pickle=False)
    np.testing.assert_allclose(latents, _golden("mean"), atol=TOLERANCE)


def check_pipeline(environment: Environment) -> None:
    """Embed the golden images with the bundle itself."""
    np.save(environment.folder / "images.npy", _golden("images"))
    words = ("images.npy", "out.parquet", "--bundle", str(GOLDEN / "golden"), "--json")
    summary = json.loads(environment.run("convvae-embed", "run", *words))
    if summary["rows"] != len(_golden("images")):
        raise ReleaseError(f"convvae-embed wrote {summary['rows']} rows")


def check_trainer(environment: Environment) -> None:
    """Train a model of digits for an epoch, and publish it."""
    words = ("--dataset", "digits", "--epochs", "1", "--width", "4", "--run-dir", "run")
    environment.run("convvae-train", "fit", *words, "--models", "models", "--name", "digits", timeout_s=600)


def import_trainer(wheel: Path, folder: Path) -> str:
    """Import every module of the trainer from the wheel with this Python; return how many there are."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    command = [sys.executable, "-c", IMPORT_ALL, str(folder)]
    environ = {**clean_environ(), "PYTHONPATH": str(folder)}
    return run(command, cwd=folder, timeout_s=COMMAND_S, environ=environ).strip()


def _golden(name: str) -> np.ndarray:
    with np.load(GOLDEN / "answers.npz", allow_pickle=False) as answers:
        return np.asarray(answers[name])


# The smallest extras that each command needs, and what is done with them. "client" stands for no extras.
FORMS: dict[str, Callable[[Environment], None]] = {
    "client": check_client,
    "service,cpu": check_service,
    "service,cpu,pipeline": check_pipeline,
    "trainer,cpu": check_trainer,
}
DEFAULT_FORMS = ("client", "service,cpu", "service,cpu,pipeline")


def list_materials(tool: SbomTool, environment: Environment, wheel: Path, form: str) -> str:
    """Write the bill of materials of a form beside the wheel, and return a line about it."""
    extras = frozenset(() if form == "client" else form.split(","))
    name = "-".join(wheel.name.split("-")[:2])
    out = wheel.with_name(f"{name}.{form.replace(',', '-')}.cdx.json")
    document = tool.write(environment.python, wheel, extras, out)
    unknown = unlicensed(document)
    note = f", {len(unknown)} without a licence ({', '.join(unknown)})" if unknown else ""
    return f"{out.relative_to(ROOT)} ({len(document['components'])} packages{note})"


def release(forms: tuple[str, ...]) -> None:
    """Build, check and try the release, with a line for each step.

    Raises:
        ReleaseError: A step failed.
    """
    started_s = time.monotonic()
    wheel, sdist = build()
    for path in (wheel, sdist):
        print(f"built      {path.relative_to(ROOT)} ({path.stat().st_size / 1000:.0f} kB)", flush=True)
    check_contents(wheel, sdist)
    print("contents   as they should be", flush=True)
    with tempfile.TemporaryDirectory(prefix="convvae-release-") as tools:
        tool = SbomTool(Path(tools))
        for form in forms:
            with tempfile.TemporaryDirectory(prefix="convvae-release-") as folder:
                environment = Environment(Path(folder), wheel, "" if form == "client" else form)
                FORMS[form](environment)
                print(f"works      {wheel.name}{'' if form == 'client' else f'[{form}]'}", flush=True)
                print(f"listed     {list_materials(tool, environment, wheel, form)}", flush=True)
    if "trainer,cpu" not in forms:
        with tempfile.TemporaryDirectory(prefix="convvae-release-") as folder:
            print(f"trainer    {import_trainer(wheel, Path(folder))}", flush=True)
    print(f"released   {wheel.name.split('-')[1]} to {DIST.name}/ in {time.monotonic() - started_s:.0f} s")


def main() -> None:
    """Parse the command line, and make the release."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=DEFAULT_FORMS, help="forms to install")
    try:
        release(tuple(parser.parse_args().forms))
    except (ReleaseError, AssertionError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
