"""A message of the largest size arrives, although parts of many such messages would be too much."""

import grpc
import pytest

from convvae.v1 import vae_pb2 as pb
from support.serving import ServerProcess
from support.wire import TIMEOUT_S, refused, stub_of

MIB = 1 << 20


@pytest.mark.parametrize("mib", [20, 40, 63])
def test_a_large_message_is_read_and_answered(tiny_server: ServerProcess, mib: int) -> None:
    """One caller after another: each message is read whole, so that the answer names the file."""
    request = pb.EncodeRequest(files=[bytes(mib * MIB)])
    for _ in range(3):
        with stub_of(tiny_server.target) as stub:
            refusal = refused(stub.Encode, request)
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.violations == {"files[0]": "not a JPEG, PNG or WebP image"}


def test_two_large_messages_at_once_are_read_and_answered(tiny_server: ServerProcess) -> None:
    """They have room beside each other."""
    request = pb.EncodeRequest(files=[bytes(30 * MIB)])
    with stub_of(tiny_server.target) as one, stub_of(tiny_server.target) as other:
        calls = [stub.Encode.future(request, timeout=TIMEOUT_S) for stub in (one, other)]
        assert [call.code() for call in calls] == [grpc.StatusCode.INVALID_ARGUMENT] * 2
