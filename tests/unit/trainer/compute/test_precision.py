"""The precision follows from the setting and from what the hardware can do."""

import pytest
import torch

from convvae_trainer.compute.precision import ComputePrecision, autocast_dtype, choose_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("has_bf16", [False, True])
def test_auto_follows_from_the_hardware(monkeypatch: pytest.MonkeyPatch, has_bf16: bool) -> None:
    """`auto` is bf16 if the device has bf16 instructions, else fp32; the reason says which."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has_bf16)
    expected = {
        True: ComputePrecision("bf16", "this CPU has bf16 instructions"),
        False: ComputePrecision("fp32", "this CPU has no bf16 instructions"),
    }
    assert choose_precision("auto", CPU) == expected[has_bf16]


def test_a_gpu_that_emulates_bf16_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch counts emulated bf16 as supported unless it is told not to."""

    def is_supported(*, including_emulation: bool) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    chosen = choose_precision("auto", torch.device("cuda"))
    assert chosen == ComputePrecision("fp32", "this GPU has no bf16 instructions")


def test_a_precision_that_is_set_is_taken() -> None:
    """The setting wins over what the hardware can do."""
    assert choose_precision("bf16", CPU) == ComputePrecision("bf16", "precision is set to bf16")
    assert choose_precision("fp32", CPU) == ComputePrecision("fp32", "precision is set to fp32")


def test_autocast_rounds_in_bf16_only() -> None:
    """In fp32 there is no autocast."""
    assert autocast_dtype("bf16") is torch.bfloat16
    assert autocast_dtype("fp32") is None
