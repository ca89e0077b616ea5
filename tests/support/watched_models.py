"""A server that follows its repository: its flags, and what it says of the versions."""

from convvae.v1 import vae_pb2 as pb
from convvae.v1 import vae_pb2_grpc
from support.waiting import wait_until
from support.wire import TIMEOUT_S

INTERVAL_S = 0.1
INFO = 'convvae_model_info{model="tiny",precision="fp32",provider="CPUExecutionProvider",version="%d"} 1.0'
WATCH = ("--watch", "--watch-interval-s", str(INTERVAL_S))


def states(stub: vae_pb2_grpc.VaeServiceStub) -> dict[str, list[tuple[int, str, bool]]]:
    """Return (version, state, default?) of each model's versions."""
    return {
        model.name: [
            (v.version, pb.VersionState.Name(v.state).removeprefix("VERSION_STATE_"), v.is_default)
            for v in model.versions
        ]
        for model in stub.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT_S).models
    }


def wait_for_states(
    stub: vae_pb2_grpc.VaeServiceStub, name: str, expected: list[tuple[int, str, bool]]
) -> None:
    """Wait until ListModels says this of a model."""
    wait_until(lambda: states(stub).get(name, []) == expected)


def version_called(stub: vae_pb2_grpc.VaeServiceStub, name: str = "tiny", version: int = 0) -> int:
    """Make a call and return the version that answered."""
    request = pb.SampleRequest(model=pb.ModelRef(name=name, version=version), count=1)
    return int(stub.Sample(request, timeout=TIMEOUT_S).model.version)
