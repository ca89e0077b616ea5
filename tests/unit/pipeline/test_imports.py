import subprocess
import sys

import pytest

LIGHT = {"torch", "onnxruntime", "pyarrow", "convvae_trainer"}


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("convvae_service.pipeline", {*LIGHT, "numpy"}),
        ("convvae_service.pipeline.__main__", {*LIGHT, "numpy"}),
        ("convvae_service.pipeline.cli", {*LIGHT, "grpc"}),
        ("convvae_service.pipeline.run", LIGHT),
        ("convvae_service.pipeline.local", {"torch", "convvae_trainer"}),
        ("convvae_service.pipeline.remote", LIGHT),
        ("convvae_service.pipeline.parquet", LIGHT),
    ],
)
def test_import_stays_light(module: str, banned: set[str]) -> None:
    """Nothing here needs torch, and no module loads an extra before it is used."""
    code = f"import sys, {module}; print(*{{m.partition('.')[0] for m in sys.modules}})"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not banned & set(loaded)
