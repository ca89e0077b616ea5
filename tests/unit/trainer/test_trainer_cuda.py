"""On a GPU: every objective trains, stops, resumes, is evaluated as on the CPU, and is exported."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from convvae_service.bundle import OBJECTIVES, read_bundle
from convvae_trainer.commands import run_evaluate, run_export
from convvae_trainer.config import ADVERSARIAL, config_from
from convvae_trainer.data import load_dataset
from convvae_trainer.errors import Interrupted
from convvae_trainer.evaluate import Evaluation
from convvae_trainer.fit import fit
from convvae_trainer.learner import Learner
from unit.trainer.conftest import TINY, write_blobs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

# Relative, of float32 figures: sums are taken in another order.
TOLERANCE = 1e-3
STOP_AT_STEP = 2


@pytest.mark.parametrize("precision", ["fp32", "auto"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_run_on_a_gpu_does_all_that_one_on_the_cpu_does(
    objective: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped, resumed, evaluated with the CPU's figures, and published with parity."""
    changes: dict[str, Any] = {"device": "cuda", "objective": objective, "epochs": 2, "precision": precision}
    if objective in ADVERSARIAL:
        changes["discriminator_width"] = 4
    config = config_from({"dataset": str(write_blobs(tmp_path / "blobs.npy"))}, TINY, changes)
    dataset, run_dir = load_dataset(config), tmp_path / "run"
    step = Learner.step

    def stopping(self: Learner, *args: Any, **kwargs: Any) -> None:
        if self.num_steps == STOP_AT_STEP:
            signal.raise_signal(signal.SIGTERM)
        step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", stopping)
        with pytest.raises(Interrupted):
            fit(config, dataset, run_dir)
    done = fit(config, dataset, run_dir, resume=True)
    assert done.learner.device.type == "cuda"
    assert [leg.step for leg in done.run.legs] == [0, STOP_AT_STEP + 1]
    assert sum(line.get("skipped_steps", 0) for line in done.run.read_metrics()) == 0
    found = {device: evaluated(run_dir, device) for device in ("cuda", "cpu")}
    for name in ("elbo", "distortion", "rate", "mse", "psnr_db", "ssim"):
        on_gpu, on_cpu = getattr(found["cuda"], name), getattr(found["cpu"], name)
        assert on_gpu == (None if on_cpu is None else pytest.approx(on_cpu, rel=TOLERANCE)), name
    assert found["cuda"].active_units == found["cpu"].active_units
    exported = run_export(
        run_dir, models=tmp_path / "models", name="blobs", dataset=None, data_root=None, download=False
    )
    assert read_bundle(exported.folder).manifest.parity["fp32"].image_steps <= 1


def evaluated(run_dir: Path, device: str) -> Evaluation:
    nothing: dict[str, Any] = {"dataset": None, "data_root": None, "binarize": None, "seed": None}
    return run_evaluate(run_dir, **nothing, download=False, device=device)


def test_no_step_makes_the_host_wait(tmp_path: Path) -> None:
    """PyTorch itself finds no step that waits for the GPU, of any objective, in either phase."""
    dataset = str(write_blobs(tmp_path / "blobs.npy"))
    images = torch.from_numpy(load_dataset(config_from({"dataset": dataset}, TINY)).train)
    for objective in OBJECTIVES:
        small = {"discriminator_width": 4} if objective in ADVERSARIAL else {}
        config = config_from({"dataset": dataset}, TINY, {"objective": objective, "device": "cuda", **small})
        learner = Learner(config, shape=(12, 10, 1), device=torch.device("cuda"))
        batch = images[:16].permute(0, 3, 1, 2).contiguous().cuda()
        for fraction in (0.0, 1.0):
            learner.step(batch, learning_rate=1e-3, beta=1.0, fraction=fraction)
            torch.cuda.set_sync_debug_mode("error")
            try:
                learner.step(batch, learning_rate=1e-3, beta=1.0, fraction=fraction)
            finally:
                torch.cuda.set_sync_debug_mode("default")
