"""`make tools`, and the rules of buf.yaml for changes of the contract."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUF = ROOT / ".tools" / "bin" / "buf"
RECORDED = ROOT / "tests" / "golden" / "recorded"


def make_tools(tmp_path: Path, toolchains: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `make tools` in an empty folder, where only `toolchains`, small shell programs, are installed."""
    programs = tmp_path / "programs"
    programs.mkdir(exist_ok=True)
    for name in ("bash", "make", "mkdir", "touch", "rm", "ln"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).unlink(missing_ok=True)
        (programs / name).symlink_to(found)
    for name, program in toolchains.items():
        (programs / name).write_text(f"#!{programs}/bash\n{program}\n")
        (programs / name).chmod(0o755)
    return subprocess.run(
        ["make", "-f", ROOT / "Makefile", "tools"],
        cwd=tmp_path,
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_absent_toolchains_are_named(tmp_path: Path) -> None:
    """Without npm, go and Python, `make tools` says what it leaves out, and does not fail."""
    done = make_tools(tmp_path, {})
    assert done.returncode == 0, done.stderr
    for tool, toolchain in (
        ("buf", "npm"),
        ("grpcurl", "go"),
        ("grpc-health-probe", "go"),
        ("grpc-js", "npm"),
        ("grpc-go", "go"),
        ("readers", "python3"),
        ("embedding-atlas", "python3"),
        ("tritonclient", "python3"),
        ("kserve", "python3"),
        ("ghz", "go"),
        ("py-spy", "python3"),
        ("helm", "go"),
        ("kubeconform", "go"),
        ("kubernetes-validate", "python3"),
        ("keda", "go"),
        ("prometheus-operator", "go"),
        ("hadolint", "python3"),
        ("compose-go", "go"),
        ("gitleaks", "go"),
        ("nvidia-pytriton", "python3"),
    ):
        assert any(
            line.startswith(f"{tool} ") and line.endswith(f"skipped, {toolchain} is not installed")
            for line in done.stdout.splitlines()
        ), done.stdout


def test_failed_installations_fail(tmp_path: Path) -> None:
    """A toolchain that is there and fails makes `make tools` fail, and the next run tries again."""
    for _ in range(2):
        done = make_tools(tmp_path, {"go": "exit 3"})
        assert done.returncode != 0
        assert done.stdout.count("FAILED") == 10


def test_installed_tools_are_left_alone(tmp_path: Path) -> None:
    """A tool that is installed in its pinned version is not installed again."""
    first = make_tools(tmp_path, {"go": 'echo "go $*"'})
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("go install ") == 9
    second = make_tools(tmp_path, {"go": "exit 3"})
    assert second.returncode == 0, second.stdout
    assert "FAILED" not in second.stdout


def test_buf_finds_a_breaking_change(tmp_path: Path) -> None:
    """With the rules of buf.yaml a new field is no break of the contract, and a removed one is."""
    if not BUF.exists():
        pytest.skip("buf is not in .tools: run `make tools`")
    protos = ROOT / "protos"
    changed = tmp_path / "protos"
    shutil.copytree(protos, changed)

    def breaking() -> subprocess.CompletedProcess[str]:
        command: list[str | Path] = [BUF, "breaking", changed, "--against", protos]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    contract = changed / "convvae" / "v1" / "vae.proto"
    text = contract.read_text()
    field = "  optional float temperature = 5;\n"
    assert field in text
    contract.write_text(text.replace(field, f"{field}  // More.\n  bool more = 6;\n"))
    extended = breaking()
    assert extended.returncode == 0, extended.stdout + extended.stderr
    contract.write_text(text.replace(field, ""))
    broken = breaking()
    assert broken.returncode != 0
    assert "temperature" in broken.stdout


@pytest.mark.parametrize("recording", sorted(path.name for path in RECORDED.iterdir()))
def test_the_contract_breaks_no_older_one(recording: str) -> None:
    """The protos of today have all that older ones had. Before the first release, names might change."""
    if not BUF.exists():
        pytest.skip("buf is not in .tools: run `make tools`")
    rules = "WIRE" if recording == "schema-1" else "FILE"
    config = json.dumps({"version": "v2", "breaking": {"use": [rules]}})
    command: list[str | Path] = [BUF, "breaking", ROOT / "protos", "--config", config]
    command += ["--against", RECORDED / recording / "protos"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
