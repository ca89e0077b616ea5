"""Services as a front serves them, against the protos."""

from typing import Any

import pytest

from convvae_service.api.servicer import VaeServicer
from convvae_service.calls.service import Service
from convvae_service.open_inference.servicer import OpenInferenceServicer
from convvae_service.settings.loader import load_settings

nothing: Any = None
SETTINGS = load_settings(["--models", "models"])
VAE = VaeServicer(
    settings=SETTINGS, repository=nothing, batcher=nothing, workers=nothing, decoding_threads=nothing
).service
OPEN_INFERENCE = OpenInferenceServicer(
    settings=SETTINGS,
    repository=nothing,
    batcher=nothing,
    runner=nothing,
    workers=nothing,
    is_ready=lambda: True,
    is_live=lambda: True,
).service


@pytest.mark.parametrize("service", [VAE, OPEN_INFERENCE], ids=["VaeService", "GRPCInferenceService"])
def test_every_method_of_the_proto_is_answered_once(service: Service) -> None:
    """A method that a proto gains cannot be forgotten, and a stream is not answered as a single call."""
    unary = {method.name for method in service.descriptor.methods if not method.client_streaming}
    streams = {method.name for method in service.descriptor.methods} - unary
    assert service.calls.keys() | service.probes.keys() == unary
    assert not service.calls.keys() & service.probes.keys()
    assert service.streams.keys() == streams


def test_methods_have_the_name_of_the_proto() -> None:
    """`ListModels` is answered by `list_models`, and so on."""
    for name, handler in VAE.calls.items():
        assert handler.__name__.replace("_", "") == name.lower()
