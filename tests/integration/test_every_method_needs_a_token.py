"""Every method of every service, called without a token, with a wrong one, with two, and with a right one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from convvae.v1 import vae_pb2
from open_inference import inference_pb2
from support.serving import ServerProcess, serving

TOKEN = "a-right-one"
SERVICES = (
    vae_pb2.DESCRIPTOR.services_by_name["VaeService"],
    inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
)
METHODS = [method for service in SERVICES for method in service.methods]
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name["Check"]
REFUSED = {
    "none": (),
    "wrong": (("authorization", "Bearer a-wrong-one"),),
    "another scheme": (("authorization", f"Basic {TOKEN}"),),
    "another key": (("x-authorization", f"Bearer {TOKEN}"),),
    "twice": (("authorization", f"Bearer {TOKEN}"),) * 2,
    "empty": (("authorization", ""),),
    "prefix": (("authorization", f"Bearer {TOKEN[:-1]}"),),
}


@pytest.fixture(scope="module")
def guarded(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory, front: str) -> Iterator[ServerProcess]:
    """A server with a token."""
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text(f"{TOKEN}\n")
    with serving(tiny_root, "--token-file", str(tokens), "--front", front) as server:
        yield server


def code_of(server: ServerProcess, method: Any, metadata: Any) -> grpc.StatusCode:
    """Call a method with an empty request, and return the code."""
    service = method.containing_service.full_name
    request = GetMessageClass(method.input_type)().SerializeToString()
    with grpc.insecure_channel(server.target) as channel:
        begin: Any = channel.stream_stream(f"/{service}/{method.name}")
        call = begin(iter([request]), metadata=metadata, timeout=20)
        try:
            for _ in call:
                break
            return grpc.StatusCode.OK
        except grpc.RpcError as error:
            return error.code()
        finally:
            call.cancel()


@pytest.mark.parametrize("given", REFUSED)
def test_no_method_answers_without_a_token(guarded: ServerProcess, given: str) -> None:
    """UNAUTHENTICATED, or UNIMPLEMENTED for a method that the server does not have. Health is for all."""
    codes = {method.full_name: code_of(guarded, method, REFUSED[given]) for method in METHODS}
    allowed = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED}
    assert {name: code for name, code in codes.items() if code not in allowed} == {}
    assert sum(code is grpc.StatusCode.UNAUTHENTICATED for code in codes.values()) >= 13, codes
    assert code_of(guarded, HEALTH, REFUSED[given]) is grpc.StatusCode.OK


def test_every_method_takes_the_token(guarded: ServerProcess) -> None:
    """The same calls get past the token: none is UNAUTHENTICATED."""
    metadata = (("authorization", f"Bearer {TOKEN}"),)
    codes = {method.full_name: code_of(guarded, method, metadata) for method in METHODS}
    assert grpc.StatusCode.UNAUTHENTICATED not in codes.values(), codes
    assert codes["convvae.v1.VaeService.ListModels"] is grpc.StatusCode.OK
