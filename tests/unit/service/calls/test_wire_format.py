"""Messages that would take far more memory than their bytes, and honest ones of full size."""

import subprocess
import sys
import time
import tracemalloc

import pytest
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from hypothesis import given
from hypothesis import strategies as st

from convvae.v1 import vae_pb2 as pb
from convvae_service.calls.request_reader import RequestReader
from convvae_service.errors import InvalidInput
from open_inference import inference_pb2 as inference
from support.message_limits import LIMITS

MIB = 1 << 20
INFER = inference.ModelInferRequest
SERVICES: list[ServiceDescriptor] = [
    pb.DESCRIPTOR.services_by_name["VaeService"],
    inference.DESCRIPTOR.services_by_name["GRPCInferenceService"],
]
REQUESTS = sorted(
    {GetMessageClass(method.input_type) for service in SERVICES for method in service.methods}
    | {HealthCheckRequest, ServerReflectionRequest},
    key=lambda kind: str(kind.DESCRIPTOR.full_name),
)
TOO_MANY = "the message has more than 2048 fields, up to here"


def varint(value: int) -> bytes:
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes(data) + bytes([value])


def field(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def refusal_of(kind: type[Message], data: bytes) -> str | None:
    try:
        RequestReader(kind, LIMITS).read(data)
    except InvalidInput as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("kind", "data", "refusal"),
    [
        (pb.EncodeRequest, field(3, b"") * 30 * MIB, f"files: {TOO_MANY}"),
        (INFER, field(5, b"") * 30 * MIB, f"inputs: {TOO_MANY}"),
        (INFER, field(6, b"") * 30 * MIB, f"outputs: {TOO_MANY}"),
        (INFER, field(7, b"") * 30 * MIB, f"raw_input_contents: {TOO_MANY}"),
        (INFER, field(4, b"") * 30 * MIB, f"parameters: {TOO_MANY}"),
        (INFER, b"\x78\x01" * 30 * MIB, f"request: {TOO_MANY}"),
        (INFER, field(5, field(5, field(8, b"") * 30 * MIB)), f"inputs.contents.bytes_contents: {TOO_MANY}"),
        (INFER, field(5, b"\x18\x01" * 30 * MIB), f"inputs.shape: {TOO_MANY}"),
        (INFER, field(4, field(2, b"\x1a\x00" * 30 * MIB)), f"parameters.value.string_param: {TOO_MANY}"),
        # The tag of `inputs` with a byte more than it needs.
        (INFER, b"\xaa\x00\x00" * 20 * MIB, f"inputs: {TOO_MANY}"),
        (
            INFER,
            field(5, field(3, b"\x01" * 30 * MIB)),
            f"inputs.shape: has {30 * MIB} bytes of integers, more than the {2 * MIB} of one call",
        ),
        (
            INFER,
            field(5, field(5, field(4, b"\x01" * MIB) * 3)),
            "inputs.contents.uint_contents: has 3145728 bytes of integers, more than the 2097152 of one call",
        ),
        (
            INFER,
            field(1, b"m" * 60 * MIB),
            f"model_name: has {60 * MIB} bytes, more than the 131072 of a text",
        ),
        (INFER, field(3, b"i" * 131073), "id: has 131073 bytes, more than the 131072 of a text"),
        (
            pb.SampleRequest,
            bytes(262145),
            "request: has 262145 bytes, more than the 262144 of one call",
        ),
        (
            HealthCheckRequest,
            field(1, b"m" * MIB),
            f"request: has {MIB + 4} bytes, more than the 262144 of one call",
        ),
    ],
)
def test_a_message_that_would_grow_is_refused_within_milliseconds(
    kind: type[Message], data: bytes, refusal: str
) -> None:
    """The refusal names the field and the limit, and costs no memory, whatever the size."""
    reader = RequestReader(kind, LIMITS)
    tracemalloc.start()
    started_s = time.process_time()
    with pytest.raises(InvalidInput) as caught:
        reader.read(data)
    seconds = time.process_time() - started_s
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(caught.value) == refusal
    # Tracing makes it several times slower.
    assert seconds < 0.1
    assert peak < 1 * MIB


@pytest.mark.parametrize(
    "data",
    [
        # Nested groups, 10,000 deep.
        b"\x7b" * 10_000 + b"\x7c" * 10_000,
        # A number of 11 bytes and more: as a tag, as a length, as a value.
        b"\xff" * 5000,
        b"\x2a" + b"\xff" * 5000,
        b"\x78" + b"\xff" * 5000,
        # A length beyond the end, of the request and of a message in it.
        b"\x3a\xff\xff\xff\x07" + bytes(5000),
        field(5, b"\x0a\xff\x7f" + bytes(40)) + bytes(5000),
        # A tag, a length and a value that do not come.
        bytes([0x3A, 0]) * 2000 + b"\x3a",
        bytes([0x3A, 0]) * 2000 + b"\xba\x80",
        # The number of a field is 0.
        bytes(5000),
    ],
)
def test_broken_bytes_are_refused(data: bytes) -> None:
    """The walk ends where the bytes make no sense, or leaves it to the parser."""
    assert refusal_of(INFER, data) is not None


def test_honest_requests_of_full_size_pass() -> None:
    """As many rows as a call may have, in every form that the service reads."""
    shape = [1024, 28, 28, 1]
    num_values = 1024 * 784
    tensor = inference.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=shape)
    parameters = {f"key-{n}": inference.InferParameter(string_param="x" * 30) for n in range(50)}
    typed = INFER(model_name="m.encoder", inputs=[tensor], parameters=parameters)
    typed.inputs[0].contents.uint_contents.extend([255] * num_values)
    floats = INFER(model_name="m.decoder", inputs=[tensor])
    floats.inputs[0].contents.fp32_contents.extend([0.5] * (15 * MIB))
    honest: list[Message] = [
        pb.EncodeRequest(files=[bytes(60_000)] * 1024, model=pb.ModelRef(name="m", version=3)),
        pb.EncodeRequest(pixels=pb.Pixels(data=bytes(63 * MIB), count=1024, height=1, width=1, channels=1)),
        pb.DecodeRequest(latents=pb.Vectors(data=bytes(63 * MIB), count=1024, dimension=16)),
        INFER(inputs=[tensor], raw_input_contents=[bytes(63 * MIB)], id="i" * 131_072),
        INFER(inputs=[tensor], raw_input_contents=[bytes(1000)] * 1024),
        typed,
        floats,
    ]
    for message in honest:
        assert RequestReader(type(message), LIMITS).read(message.SerializeToString()) == message


@given(st.sampled_from(REQUESTS), st.binary(max_size=200), st.integers(0, 60))
def test_the_walk_raises_nothing_else(kind: type[Message], data: bytes, times: int) -> None:
    """Bytes of any kind are a message, or refused; what is read is what the parser reads."""
    data = data * times
    try:
        message = RequestReader(kind, LIMITS).read(data)
    except InvalidInput:
        return
    expected = kind.FromString(data)
    assert message.SerializeToString() == expected.SerializeToString()


@given(
    st.sampled_from(REQUESTS), st.lists(st.tuples(st.integers(1, 20), st.binary(max_size=300)), max_size=99)
)
def test_what_the_parser_reads_is_not_called_broken(
    kind: type[Message], fields: list[tuple[int, bytes]]
) -> None:
    """A message that passes every limit is refused only if the parser refuses it too, or if it has groups."""
    data = b"".join(field(number, body) for number, body in fields)
    refusal = refusal_of(kind, data)
    if refusal is None or "more than" in refusal:
        return
    # A message in a field may have groups, which the parser would skip.
    groups = any(byte & 7 in (3, 4) for _, body in fields for byte in body)
    if not groups:
        with pytest.raises(DecodeError):
            kind.FromString(data)


_GROWTH = """
import resource, sys
from convvae_service.calls.request_reader import RequestReader
from open_inference.inference_pb2 import ModelInferRequest
sys.path.insert(0, "tests")
from support.message_limits import LIMITS
from unit.service.calls.test_wire_format import WORST
data = WORST[sys.argv[1]]()
reader = RequestReader(ModelInferRequest, LIMITS)
reader.read(b"")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
message = reader.read(data)
print(len(data), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)
"""

# The largest messages of each kind that pass.
WORST = {
    "integers of 8 bytes": lambda: field(5, field(5, field(3, b"\x01" * (2 * MIB - 9)))),
    "sizes": lambda: field(5, field(3, b"\x01" * (2 * MIB - 9))),
    "messages": lambda: field(5, b"") * 2040,
    "entries": lambda: b"".join(field(4, field(1, b"%d" % n)) for n in range(250)),
    "bytes": lambda: field(7, bytes(63 * MIB)),
    "unknown": lambda: field(15, bytes(31 * MIB)) * 2,
}


@pytest.mark.parametrize("worst", WORST)
def test_a_message_takes_a_stated_multiple_of_its_bytes(worst: str) -> None:
    """Once its bytes, and besides 16 times those of integers (32 MiB at most) and 1 MiB for its fields."""
    done = subprocess.run(
        [sys.executable, "-c", _GROWTH, worst], capture_output=True, text=True, check=True, timeout=60
    )
    num_bytes, growth = map(int, done.stdout.split())
    assert growth <= num_bytes + 34 * MIB
    if worst in ("bytes", "unknown"):
        assert growth <= num_bytes + 3 * MIB
