"""The front of grpcio, apart from what tests of real servers see of it."""

import logging

import pytest

from convvae_service.calls.runner import CallRunner
from convvae_service.observability.metrics import Metrics
from convvae_service.server.credentials import Credentials
from convvae_service.server.grpc_front import GrpcFront
from convvae_service.settings.loader import load_settings


async def test_callers_that_leave_while_an_answer_is_sent_are_no_errors(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In a storm of short deadlines gRPC logs some of them. Other errors are a line in the server's words."""
    settings = load_settings(["--models", "unused", "--address", "127.0.0.1:0"])
    GrpcFront(settings, CallRunner(metrics=Metrics(), max_call_s=60), Credentials(settings))
    log = logging.getLogger("grpc._cython.cygrpc")
    for operation in ("SendStatusFromServerOperation", "ReceiveMessageOperation"):
        error = RuntimeError(f'Failed "execute_batch": (<grpc._cython.cygrpc.{operation} object at 0x7f>,)')
        log.error("ExecuteBatchError raised in core by servicer method [%s]", operation, exc_info=error)
    assert [record.getMessage() for record in caplog.records] == ["gRPC could not read or answer a call"]
