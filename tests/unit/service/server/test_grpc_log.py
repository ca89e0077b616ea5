"""grpcio logs little of its callers, and nothing that they wrote."""

import logging
from collections.abc import Iterator

import pytest

from convvae_service.observability.logs import JsonFormatter
from convvae_service.server.grpc_log import GrpcLog

SECRET = "Bearer s3cr3t"


@pytest.fixture
def clock() -> list[float]:
    return [100.0]


@pytest.fixture
def logger(clock: list[float]) -> Iterator[logging.Logger]:
    logger = logging.getLogger("test_grpc_log")
    grpc_log = GrpcLog(lambda: clock[0])
    logger.addFilter(grpc_log)
    yield logger
    logger.removeFilter(grpc_log)


def fail(logger: logging.Logger, message: str = "Unexpected [%s] raised by servicer method [%s]") -> None:
    try:
        raise UnicodeDecodeError("ascii", SECRET.encode(), 0, 1, "ordinal not in range")
    except UnicodeDecodeError:
        logger.exception(message, "UnicodeDecodeError", SECRET)


def test_a_line_tells_the_kind_and_the_place_but_nothing_of_the_caller(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    """The traceback and the message would have the caller's token."""
    fail(logger)
    (record,) = caplog.records
    line = JsonFormatter().format(record)
    assert "s3cr3t" not in line
    assert record.levelname == "WARNING"
    assert '"message": "gRPC could not read or answer a call"' in line
    assert '"error": "UnicodeDecodeError"' in line
    assert "test_grpc_log.py" in line
    assert len(line) < 500


def test_many_failures_are_one_line_and_a_number(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture, clock: list[float]
) -> None:
    """The next line says how many were left out."""
    for _ in range(1000):
        fail(logger)
    assert len(caplog.records) == 1
    clock[0] += 11
    fail(logger)
    first, second = caplog.records
    assert first.__dict__["facts"]["left_out"] == 0
    assert second.__dict__["facts"]["left_out"] == 999


def test_callers_that_leave_are_no_news(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    """Only their answers could not be sent; a read that fails is told."""
    sending = 'Failed "execute_batch": (<grpc._cython.cygrpc.SendMessageOperation object at 0x1>,)'
    for text in (sending, sending.replace("SendMessage", "ReceiveMessage")):
        try:
            raise RuntimeError(text)
        except RuntimeError:
            logger.exception("ExecuteBatchError raised in core by servicer method [%s]", "/Sample")
    (record,) = caplog.records
    assert record.__dict__["facts"]["error"] == "RuntimeError"


def test_a_record_without_an_error_is_told_too(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    """It has no place."""
    logger.error("%s", SECRET)
    (record,) = caplog.records
    assert record.__dict__["facts"] == {"error": "", "at": "", "left_out": 0}
