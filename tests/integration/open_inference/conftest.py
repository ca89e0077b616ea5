from collections.abc import Iterator

import pytest

from support.inference_wire import Stub, inference_stub
from support.serving import ServerProcess


@pytest.fixture(scope="module")
def stub(tiny_server: ServerProcess) -> Iterator[Stub]:
    """The stub of the Open Inference Protocol on a server of `tiny_root`."""
    with inference_stub(tiny_server.target) as stub:
        yield stub


@pytest.fixture(scope="module")
def zoo(zoo_server: ServerProcess) -> Iterator[Stub]:
    """The stub of the Open Inference Protocol on a server of `zoo_root`."""
    with inference_stub(zoo_server.target) as stub:
        yield stub
