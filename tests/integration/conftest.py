from collections.abc import Iterator

import pytest

from convvae.v1 import vae_pb2_grpc
from support.serving import ServerProcess
from support.wire import stub_of


@pytest.fixture(scope="module")
def stub(tiny_server: ServerProcess) -> Iterator[vae_pb2_grpc.VaeServiceStub]:
    """The stub of a server of `tiny_root`."""
    with stub_of(tiny_server.target) as stub:
        yield stub


@pytest.fixture(scope="module")
def zoo(zoo_server: ServerProcess) -> Iterator[vae_pb2_grpc.VaeServiceStub]:
    """The stub of a server of `zoo_root`."""
    with stub_of(zoo_server.target) as stub:
        yield stub
