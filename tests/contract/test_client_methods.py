"""The clients and the contract: every RPC has its method, every message stays under the limit."""

import dataclasses
import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convvae import AsyncClient, Client, Limits, ModelInfo
from convvae.calls.chunks import OVERHEAD_BYTES, split_rows
from convvae.calls.image_operations import Encode, Reconstruct, Score
from convvae.calls.latent_operations import Decode, Sample
from convvae.calls.operation import Operation
from convvae.inputs.given_images import check_images
from convvae.model_name import ModelName
from convvae.results import Likelihood
from convvae.v1 import vae_pb2

# RPC -> method of both clients. A new RPC fails the first test until it stands here and in the clients.
METHODS = {
    "Encode": "encode",
    "Decode": "decode",
    "Sample": "sample",
    "Reconstruct": "reconstruct",
    "Score": "score",
    "ListModels": "models",
    "GetModel": "model",
}
SERVICE = vae_pb2.DESCRIPTOR.services_by_name["VaeService"]


def public_methods(client: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(client, inspect.isfunction) if not name.startswith("_")}


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_every_rpc_has_a_method(client: type) -> None:
    """Each client has one method for each RPC, `health` and `close`, and nothing else."""
    assert set(METHODS) == {method.name for method in SERVICE.methods}
    assert public_methods(client) == {*METHODS.values(), "health", "close"}


@pytest.mark.parametrize("name", ["__init__", *METHODS.values(), "health", "close"])
def test_both_clients_have_the_same_signatures(name: str) -> None:
    """Both clients take and return the same, one of them after `await`."""
    ours, theirs = (inspect.signature(getattr(client, name)) for client in (Client, AsyncClient))
    assert ours == theirs
    assert name == "__init__" or inspect.iscoroutinefunction(getattr(AsyncClient, name))


@pytest.mark.parametrize("operation", [Encode, Decode, Sample, Reconstruct, Score])
def test_operation_names_an_rpc(operation: Any) -> None:
    """Every batched operation is an RPC of the service."""
    assert operation.method in METHODS


@pytest.mark.parametrize("record", [Limits, Likelihood])
def test_records_mirror_their_messages(record: type) -> None:
    """A field that is added to the contract is not forgotten in the client's record."""
    message = vae_pb2.DESCRIPTOR.message_types_by_name[record.__name__]
    assert {field.name for field in dataclasses.fields(record)} == set(message.fields_by_name)


def test_model_info_mirrors_its_message() -> None:
    """`ModelInfo` has every field of `GetModelResponse`, and who answered."""
    message = vae_pb2.DESCRIPTOR.message_types_by_name["GetModelResponse"]
    names = {field.name for field in dataclasses.fields(ModelInfo)}
    assert names == set(message.fields_by_name) | {"version", "precision"}


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from([1, 3]),
    latent_dim=st.integers(1, 40),
    rows=st.integers(1, 60),
    max_rows=st.integers(3, 50),
    room=st.integers(1000, 4000),
    name=st.text("abcdefgh.-_", min_size=1, max_size=64),
    files=st.booleans(),
    num_samples=st.integers(0, 3),
)
def test_no_message_is_above_the_limit(
    height: int,
    width: int,
    channels: int,
    latent_dim: int,
    rows: int,
    max_rows: int,
    room: int,
    name: str,
    files: bool,
    num_samples: int,
) -> None:
    """Serialised requests of every operation, and full replies to them, keep under both limits."""
    limits = Limits(max_rows_per_call=max_rows, max_message_bytes=OVERHEAD_BYTES + room)
    about = ModelInfo(
        model=name, version=2**62, precision="fp32", objective="vae", likelihood=Likelihood(name="bernoulli"),
        height=height, width=width, channels=channels, latent_dim=latent_dim, capabilities=(), precisions=(),
        limits=limits, manifest_json="",
    )  # fmt: skip
    array = np.zeros((rows, height, width, channels), np.uint8)
    images = check_images([bytes(1 + row % 400) for row in range(rows)] if files else array)
    operations: list[Operation[object]] = [
        Encode(images, include_log_variance=True),
        Decode(np.zeros((rows, latent_dim), np.float32)),
        Sample(rows, 2**64 - 1, 0.5, 2**62),
        Reconstruct(images),
        Score(images, num_samples, 2**64 - 1, 2**62),
    ]
    model = ModelName(name, 2**62).to_message()
    served = vae_pb2.ServedModel(name=name, version=2**62, precision="fp32")
    for operation in operations:
        chunks = split_rows(
            rows,
            request_bytes=operation.request_bytes(about),
            reply_bytes=operation.reply_bytes(about),
            limits=limits,
            draws=operation.draws,
        )
        for chunk in chunks:
            assert len(chunk) * operation.draws <= max_rows
            request = operation.request(model, chunk, about)
            assert request.ByteSize() <= limits.max_message_bytes
            reply_bytes = served.ByteSize() + len(chunk) * operation.reply_bytes(about)
            assert reply_bytes + 200 <= limits.max_message_bytes
