"""docs/python.md is run, not believed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text()


@pytest.mark.slow
def test_the_blocks_run_in_order(tmp_path: Path) -> None:
    """Every Python block works as printed, one after the other, and gives what the page says."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 4
    checks = """
assert z.shape == (len(images), 16) and z.dtype == np.float32
assert x.images.shape == (20, 32, 32, 1)
assert version.folder.parts[-3:] == ("models", "digits", "1")
assert [line["epoch"] for line in longer.metrics() if line["kind"] == "epoch"] == [1, 2, 3, 4]
assert figures.optional.log_likelihood.samples == 10
assert other.images == 200
assert s.images.shape == (16, 32, 32, 1) and s.seed == 7
assert e.elbo.shape == (len(images),)
assert str(error_text) == "files[0]: cat.png: No such file or directory"
"""
    script = "\n".join(blocks).replace("print(error) ", "print(error); error_text = error ")
    (tmp_path / "page.py").write_text(script + checks)
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "files[0]: cat.png: No such file or directory" in done.stdout
    assert "\x1b" not in done.stdout


def test_every_function_is_described() -> None:
    """The page names each function of the two packages, and each kind of error that they raise."""
    import convvae_service
    import convvae_trainer

    for package in (convvae_service, convvae_trainer):
        for name in package.__all__:
            if name not in ("Dataset", "Exported", "LocalModel", "StartupError"):
                assert f"{name}" in PAGE, name
