import subprocess
import sys

import pytest

import convvae


def modules_after(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after `code`."""
    code = f"import sys\n{code}\nprint(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


def test_public_names_exist() -> None:
    """Everything in `__all__` can be imported, and unknown names raise AttributeError."""
    assert list(convvae.__all__) == sorted(convvae.__all__, key=lambda name: (name.startswith("_"), name))
    for name in convvae.__all__:
        assert getattr(convvae, name) is not None
    assert set(convvae.__all__) <= set(dir(convvae))
    with pytest.raises(AttributeError, match="no attribute 'Klient'"):
        convvae.Klient  # type: ignore[attr-defined] # noqa: B018


def test_every_public_name_of_the_modules_is_exported() -> None:
    """Results and exceptions cannot be forgotten in `__all__`."""
    from convvae import errors, results

    assert {*errors.__all__, *results.__all__} <= set(convvae.__all__)


@pytest.mark.parametrize(
    "code", ["from convvae import *", "import convvae.client, convvae.aio", "import convvae.v1.vae_pb2_grpc"]
)
def test_client_stays_light(code: str) -> None:
    """The client loads neither engine nor trainer, nor the packages of its command line."""
    heavy = {"torch", "onnxruntime", "PIL", "typer", "rich", "convvae_service", "convvae_trainer"}
    loaded = modules_after(code)
    assert heavy & {name.partition(".")[0] for name in loaded} == set()
    # gRPC imports the empty package `grpc_health` by itself where it is installed.
    assert "grpc_health.v1.health_pb2" not in loaded


def test_import_alone_loads_nothing() -> None:
    """`import convvae` is fast: numpy, gRPC and protobuf load with the first name that needs them."""
    loaded = modules_after("import convvae")
    assert not {"numpy", "grpc", "google.protobuf", "convvae.client"} & loaded


def test_health_messages_stand_beside_grpc_health() -> None:
    """The health check of the client and grpcio-health-checking load in one process, in either order."""
    ours = "import convvae.client, convvae.transport.channel"
    theirs = "import grpc_health.v1.health_pb2_grpc"
    for code in (f"{ours}\n{theirs}", f"{theirs}\n{ours}"):
        assert {"convvae.client", "grpc_health.v1.health_pb2"} <= modules_after(code)
