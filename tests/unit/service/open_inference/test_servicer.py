"""Requests of the Open Inference Protocol to arrays, names to graphs, and streams."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from convvae_service.batching.pending_bytes import PendingBytes
from convvae_service.bundle import read_bundle
from convvae_service.calls.status import Refusal
from convvae_service.engine.stages import Engine
from convvae_service.errors import InvalidInput
from convvae_service.open_inference import stream as open_inference_stream
from convvae_service.open_inference import tensors
from convvae_service.open_inference.graphs import GraphModel, split_name, version_number
from convvae_service.open_inference.stream import InferStream
from convvae_service.open_inference.tensors import read_input, requested_outputs, write_outputs
from convvae_service.repository.loaded_version import LoadedVersion
from open_inference import inference_pb2 as pb
from support.tiny_bundle import LATENT_DIM, SHAPE, publish_tiny

MAX_ROWS = 5


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> LoadedVersion:
    return loaded(publish_tiny(tmp_path_factory.mktemp("models")))


def loaded(folder: Path) -> LoadedVersion:
    bundle = read_bundle(folder)
    engine = Engine(bundle, device="cpu")
    return LoadedVersion(
        name=folder.parent.name, version=1, manifest=bundle.manifest, manifest_json="", engine=engine
    )


Read = Callable[..., Any]


@pytest.fixture(scope="module")
def read(run_to_end: Callable[[Coroutine[Any, Any, Any]], Any]) -> Iterator[Read]:
    """Read the input of a request for a graph, within the limits of these tests."""
    with ThreadPoolExecutor(1, thread_name_prefix="worker") as workers:
        limits = {"max_rows": MAX_ROWS, "workers": workers}
        yield lambda request, graph, **changes: run_to_end(
            read_input(request, graph=graph, **{**limits, **changes})
        )


sizes = st.lists(st.integers(-1, 9), max_size=5) | st.tuples(
    st.integers(-1, 7), *(st.just(size) for size in SHAPE.as_tuple)
)
contents = st.builds(
    pb.InferTensorContents,
    uint_contents=st.lists(st.integers(0, 300), max_size=4)
    | st.integers(0, 5).map(lambda rows: [7] * (48 * rows)),
    fp32_contents=st.lists(st.floats(width=32), max_size=8),
    bool_contents=st.lists(st.booleans(), max_size=1),
)
inputs = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=st.sampled_from(["image", "image", "latent"]),
    datatype=st.sampled_from(["UINT8", "UINT8", "FP32", ""]),
    shape=sizes,
    contents=st.none() | contents,
)
requests = st.builds(
    pb.ModelInferRequest,
    inputs=st.lists(inputs, min_size=1, max_size=1) | st.lists(inputs, max_size=3),
    raw_input_contents=st.lists(
        st.integers(0, 6).map(lambda rows: bytes(48 * rows)) | st.binary(max_size=9), max_size=2
    ),
)


@settings(max_examples=500, deadline=None)
@given(message=requests)
def test_inputs_are_rows_or_refused(served: LoadedVersion, read: Read, message: pb.ModelInferRequest) -> None:
    """Whatever a request holds comes out as rows within the limits, or a fault names a field."""
    try:
        images = read(message, GraphModel.of(served, "encoder"))
    except InvalidInput as error:
        assert all(v.field and v.description for v in error.violations)  # noqa: PT017
        return
    assert images.dtype == np.uint8
    assert 1 <= len(images) <= MAX_ROWS
    assert images.shape[1:] == SHAPE.as_tuple


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=80))
def test_bytes_of_the_wire_are_rows_or_refused(served: LoadedVersion, read: Read, data: bytes) -> None:
    """Bytes that parse as a request never raise anything but the caller's own error."""
    try:
        request = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        return
    graph = GraphModel.of(served, "decoder")
    for act in (lambda: read(request, graph), lambda: requested_outputs(request, graph=graph)):
        try:
            act()
        except InvalidInput:
            continue


@pytest.mark.parametrize("rows", [1, 5])
def test_raw_and_typed_values_are_the_same_array(served: LoadedVersion, read: Read, rows: int) -> None:
    """An array sent raw and sent typed is read as itself, and as little-endian whatever the machine."""
    graph = GraphModel.of(served, "decoder")
    latents = np.random.default_rng(0).normal(size=(rows, LATENT_DIM)).astype(np.float32)
    raw = pb.ModelInferRequest(raw_input_contents=[latents.astype("<f4").tobytes()])
    raw.inputs.add(name="latent", datatype="FP32", shape=latents.shape)
    typed = pb.ModelInferRequest()
    typed.inputs.add(name="latent", datatype="FP32", shape=latents.shape)
    typed.inputs[0].contents.fp32_contents.extend(latents.ravel().tolist())
    for request in (raw, typed):
        np.testing.assert_array_equal(read(request, graph), latents)


@pytest.mark.parametrize(("rows", "aside"), [(3, False), (3000, True)])
def test_many_typed_values_are_read_by_a_worker(
    served: LoadedVersion, read: Read, rows: int, aside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long list of typed values, which takes long to convert, does not hold up the thread of the front."""
    request = pb.ModelInferRequest()
    request.inputs.add(name="image", datatype="UINT8", shape=(rows, *SHAPE.as_tuple))
    values = np.random.default_rng(0).integers(0, 256, rows * SHAPE.num_values).tolist()
    request.inputs[0].contents.uint_contents.extend(values)
    readers: list[str] = []
    original = tensors._typed

    def noted(*words: Any) -> Any:
        readers.append(threading.current_thread().name)
        return original(*words)

    monkeypatch.setattr(tensors, "_typed", noted)
    images = read(request, GraphModel.of(served, "encoder"), max_rows=rows)
    assert images.ravel().tolist() == values
    assert [name.startswith("worker") for name in readers] == [aside]


def test_outputs_are_written_raw_in_their_order(served: LoadedVersion) -> None:
    """Each output has its name, type, shape and little-endian bytes."""
    image, pixel_mean = GraphModel.of(served, "decoder").outputs
    results = {
        "image": np.arange(96, dtype=np.uint8).reshape(2, *SHAPE.as_tuple),
        "pixel_mean": np.arange(96, dtype=">f4").reshape(2, *SHAPE.as_tuple),
    }
    reply = pb.ModelInferResponse()
    write_outputs(reply, (pixel_mean, image), results)
    assert [(t.name, t.datatype, list(t.shape)) for t in reply.outputs] == [
        ("pixel_mean", "FP32", [2, 8, 6, 1]),
        ("image", "UINT8", [2, 8, 6, 1]),
    ]
    assert np.frombuffer(reply.raw_output_contents[0], "<f4").tolist() == list(range(96))
    assert reply.raw_output_contents[1] == bytes(range(96))


@pytest.mark.parametrize("outputs", [["image"], ["pixel_mean"], ["pixel_mean", "image"], []])
def test_a_stage_gives_what_is_asked_for(served: LoadedVersion, outputs: list[str]) -> None:
    """The stage that is chosen has every output that was asked for; images alone share the native one."""
    graph = GraphModel.of(served, "decoder")
    request = pb.ModelInferRequest()
    for name in outputs:
        request.outputs.add(name=name)
    wanted = requested_outputs(request, graph=graph)
    assert [tensor.name for tensor in wanted] == (outputs or ["image", "pixel_mean"])
    stage, names = graph.stage_for(wanted)
    assert (stage is served.engine.decode) == (outputs == ["image"])
    results = stage.run((np.zeros((2, LATENT_DIM), np.float32),))
    assert len(results) == len(names)
    assert {tensor.name for tensor in wanted} <= set(names)


def test_an_autoencoder_has_no_log_variance(tmp_path: Path) -> None:
    """The outputs are those that the engine gives."""
    served = loaded(publish_tiny(tmp_path, objective="ae"))
    graph = GraphModel.of(served, "encoder")
    _, names = graph.stage_for(graph.outputs)
    assert names == ("mean",)
    assert len(served.engine.encode.run((np.zeros((1, *SHAPE.as_tuple), np.uint8),))) == 1


def test_names_of_graphs() -> None:
    """A name is a model and a role, or a model whose encoder is meant; models may have points in names."""
    assert split_name("mnist.encoder") == ("mnist", "encoder")
    assert split_name("a.b.decoder.decoder") == ("a.b.decoder", "decoder")
    for name in ("", "encoder", ".encoder", "mnist", "mnist.Encoder", "mnist.encoder "):
        assert split_name(name) == (name, "encoder")


def test_versions_are_whole_numbers() -> None:
    """Empty is the default; all but a plain number from 1 on is refused by its field."""
    assert [version_number(text, "version") for text in ("", "1", "120")] == [0, 1, 120]
    for text in ("0", "01", "-1", "1.0", " 1", "1\n", "٣", "9" * 19, "latest"):
        with pytest.raises(InvalidInput, match=r"^version: is "):
            version_number(text, "version")


class StreamContext:
    """A stream that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[pb.ModelStreamInferResponse] = []

    async def write(self, reply: pb.ModelStreamInferResponse) -> None:
        self.written.append(reply)


async def sent(count: int, *, read: list[int] | None = None) -> AsyncIterator[pb.ModelInferRequest]:
    for number in range(count):
        if read is not None:
            read.append(number)
        yield pb.ModelInferRequest(id=str(number))
        await asyncio.sleep(0)


async def test_a_stream_keeps_order_and_bounds_what_it_reads() -> None:
    """Answers that finish in any order go out in the requests' order, and no more than 16 are under way."""
    context, under_way, most = StreamContext(), 0, 0

    async def infer(request: pb.ModelInferRequest, request_id: str) -> pb.ModelInferResponse | Refusal:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02 if int(request.id) % 2 else 0.001)
        under_way -= 1
        if request.id == "3":
            return Refusal("NOT_FOUND", "not here")
        assert request_id == f"flow.{int(request.id) + 1}"
        return pb.ModelInferResponse(id=request.id)

    stream = InferStream(infer, sent(60), context.write, request_id="flow", account=PendingBytes(1 << 30))
    await stream.serve()
    assert [reply.infer_response.id for reply in context.written] == [str(n) for n in range(60)]
    assert [n for n, reply in enumerate(context.written) if reply.error_message] == [3]
    assert context.written[3].error_message == "NOT_FOUND: not here (request id flow.4)"
    assert 2 < most <= 16


async def test_a_stream_bounds_the_bytes_that_wait_to_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slowly a caller reads, few large replies are made ahead of it and many small ones; all come."""
    monkeypatch.setattr(open_inference_stream, "_MAX_REPLY_BYTES", 1000)
    made, most = 0, {"large": 0, "small": 0}

    class SlowContext(StreamContext):
        async def write(self, reply: pb.ModelStreamInferResponse) -> None:
            nonlocal made
            name = reply.infer_response.model_name
            await asyncio.sleep(0.01)
            # It is among them.
            most[name] = max(most[name], made)
            made -= 1
            await super().write(reply)

    async def infer(request: pb.ModelInferRequest, request_id: str) -> pb.ModelInferResponse:
        nonlocal made
        reply = pb.ModelInferResponse(id=request.id, model_name=request.model_name)
        row_bytes = 400 if request.model_name == "large" else 1
        reply.outputs.add(datatype="UINT8", shape=[request.inputs[0].shape[0], row_bytes])
        made += 1
        return reply

    async def requests() -> AsyncIterator[pb.ModelInferRequest]:
        for number in range(40):
            request = pb.ModelInferRequest(id=str(number), model_name="large" if number < 20 else "small")
            # The last one of the large ones is beyond the limit alone.
            request.inputs.add(shape=[9 if number == 19 else 1, 1])
            yield request

    context = SlowContext()
    stream = InferStream(infer, requests(), context.write, request_id="flow", account=PendingBytes(1 << 30))
    await stream.serve()
    assert [reply.infer_response.id for reply in context.written] == [str(n) for n in range(40)]
    assert most["large"] == 2
    assert most["small"] > 10


async def test_a_stream_counts_what_it_holds() -> None:
    """Requests and replies count until they are written. What does not fit is refused, and names are cut."""
    context, account, most = StreamContext(), PendingBytes(1 << 20), 0

    async def infer(request: pb.ModelInferRequest, request_id: str) -> pb.ModelInferResponse:
        nonlocal most
        most = max(most, account.num_bytes)
        return pb.ModelInferResponse(id=request.id)

    async def requests() -> AsyncIterator[pb.ModelInferRequest]:
        yield pb.ModelInferRequest(id="i" * 100_000)
        yield pb.ModelInferRequest(id="i" * 600_000, model_name="m" * 10_000)
        yield pb.ModelInferRequest(id="small")

    await InferStream(infer, requests(), context.write, request_id="flow", account=account).serve()
    first, second, third = (reply.infer_response for reply in context.written)
    assert (len(first.id), third.id) == (100_000, "small")
    assert (len(second.id), len(second.model_name)) == (256, 256)
    assert context.written[1].error_message.startswith("RESOURCE_EXHAUSTED: ")
    assert 200_000 <= most < 1_200_000
    assert account.num_bytes == 0


async def test_a_stream_that_is_cancelled_leaves_no_task() -> None:
    """When the caller goes, its answers under way are cancelled, and the cancellation goes on up."""
    cancelled: list[str] = []

    async def infer(request: pb.ModelInferRequest, request_id: str) -> pb.ModelInferResponse:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(request.id)
            raise
        return pb.ModelInferResponse()

    account = PendingBytes(1 << 30)
    stream = InferStream(infer, sent(5), StreamContext().write, request_id="flow", account=account)
    serving = asyncio.create_task(stream.serve())
    await asyncio.sleep(0.05)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert sorted(cancelled) == ["0", "1", "2", "3", "4"]
    assert account.num_bytes == 0
