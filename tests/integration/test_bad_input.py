"""Each call's refusals: code, field and message, over the wire. None of them disturbs the server."""

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from convvae.v1 import vae_pb2 as pb
from convvae.v1 import vae_pb2_grpc
from support.serving import serving
from support.tiny_bundle import LATENT_DIM, SHAPE, publish_tiny
from support.wire import TIMEOUT_S, pixels, png, png_bomb, random_images, refused, stub_of, vectors

IMAGES = random_images(3, *SHAPE.as_tuple)
LATENTS = np.zeros((3, LATENT_DIM), np.float32)
EMPTY = "the batch is empty: send 1 or more rows"
NEGATIVE = "is -1: send 1 or more rows"
INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND = grpc.StatusCode.NOT_FOUND


IMAGE_FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no images": ({}, "files", "the batch is empty: send 1 or more rows"),
    "both kinds": (
        {"pixels": pixels(IMAGES), "files": [png(IMAGES[0])]},
        "files",
        "set either pixels or files, not both",
    ),
    "empty batch": (
        {"pixels": pixels(IMAGES[:0])},
        "pixels.count",
        "the batch is empty: send 1 or more rows",
    ),
    "negative count": ({"pixels": pixels(IMAGES, count=-3)}, "pixels.count", "is -3: send 1 or more rows"),
    "short data": (
        {"pixels": pixels(IMAGES, data=IMAGES.tobytes()[:-1])},
        "pixels.data",
        "has 143 bytes, 3 images of 8x6x1 have 144",
    ),
    "long data": (
        {"pixels": pixels(IMAGES, count=2)},
        "pixels.data",
        "has 144 bytes, 2 images of 8x6x1 have 96",
    ),
    "height": ({"pixels": pixels(IMAGES, height=9)}, "pixels.height", "is 9, the model's images have 8"),
    "width": ({"pixels": pixels(IMAGES, width=7)}, "pixels.width", "is 7, the model's images have 6"),
    "channels": (
        {"pixels": pixels(IMAGES, channels=3)},
        "pixels.channels",
        "is 3, the model's images have 1",
    ),
    "too many rows": (
        {"pixels": pixels(np.zeros((1025, 8, 6, 1), np.uint8))},
        "pixels.count",
        "1025 rows are more than the 1024 rows of one call",
    ),
    "too many files": ({"files": [b""] * 1025}, "files", "1025 rows are more than the 1024 rows of one call"),
    "no image": ({"files": [png(IMAGES[0]), b"text"]}, "files[1]", "not a JPEG, PNG or WebP image"),
    "truncated": (
        {"files": [png(random_images(64, 64, 3))[:-500]]},
        "files[0]",
        "image file is cut short",
    ),
    "bomb": ({"files": [png_bomb()]}, "files[0]", "60000x60000 is more than the limit of 32000000 pixels"),
}


@pytest.mark.parametrize("method", ["Encode", "Reconstruct", "Score"])
@pytest.mark.parametrize("fault", IMAGE_FAULTS)
def test_bad_images(stub: vae_pb2_grpc.VaeServiceStub, method: str, fault: str) -> None:
    """Each call that takes images refuses the same faults in the same words."""
    fields, field, description = IMAGE_FAULTS[fault]
    refusal = refused(getattr(stub, method), getattr(pb, f"{method}Request")(**fields))
    assert refusal.code is INVALID
    assert refusal.violations == {field: description}
    assert refusal.message == f"{field}: {description}"
    assert refusal.reason == "INVALID_INPUT"


def test_every_bad_file_is_listed(stub: vae_pb2_grpc.VaeServiceStub) -> None:
    """Among many files, all bad indices come back and no good one."""
    good = png(IMAGES[0])
    bad = {3, 17, 18, 40}
    request = pb.EncodeRequest(files=[b"bad" if i in bad else good for i in range(41)])
    refusal = refused(stub.Encode, request)
    assert set(refusal.violations) == {f"files[{i}]" for i in bad}
    assert refusal.message == "files[3]: not a JPEG, PNG or WebP image (and 3 more)"


def test_a_thousand_bad_files_still_fit_into_the_answer(stub: vae_pb2_grpc.VaeServiceStub) -> None:
    """A list too long for a header is closed by ranges, and the code stays INVALID_ARGUMENT."""
    refusal = refused(stub.Encode, pb.EncodeRequest(files=[b"bad"] * 1024))
    assert refusal.code is INVALID
    assert refusal.violations["files[0]"] == "not a JPEG, PNG or WebP image"
    listed = len(refusal.violations) - 1
    assert refusal.violations["files"] == f"and rows {listed}-1023"


LATENT_FAULTS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "absent": ({}, {"latents.dimension": "is 0, the model's latent vectors have 4"}),
    "empty": (
        {"latents": vectors(LATENTS[:0])},
        {"latents.count": EMPTY},
    ),
    "negative count": (
        {"latents": vectors(LATENTS, count=-1)},
        {"latents.count": NEGATIVE},
    ),
    "dimension": (
        {"latents": vectors(np.zeros((3, 5), np.float32))},
        {"latents.dimension": "is 5, the model's latent vectors have 4"},
    ),
    "short data": (
        {"latents": vectors(LATENTS, data=LATENTS.tobytes()[:-4])},
        {"latents.data": "has 44 bytes, 3 float32 vectors of 4 have 48"},
    ),
    "odd data": (
        {"latents": vectors(LATENTS, data=b"123")},
        {"latents.data": "has 3 bytes, 3 float32 vectors of 4 have 48"},
    ),
    "not finite": (
        {"latents": vectors(np.array([[0, 0, 0, np.nan], [0, 0, 0, 0], [np.inf, 0, 0, 0]], np.float32))},
        {"latents[0]": "has NaN or infinite values", "latents[2]": "has NaN or infinite values"},
    ),
    "too many": (
        {"latents": vectors(np.zeros((1025, 4), np.float32))},
        {"latents.count": "1025 rows are more than the 1024 rows of one call"},
    ),
}


@pytest.mark.parametrize("fault", LATENT_FAULTS)
def test_bad_latents(stub: vae_pb2_grpc.VaeServiceStub, fault: str) -> None:
    """Latents of the wrong size, length or value are refused before they are decoded."""
    fields, violations = LATENT_FAULTS[fault]
    refusal = refused(stub.Decode, pb.DecodeRequest(**fields))
    assert (refusal.code, refusal.violations) == (INVALID, violations)


@pytest.mark.parametrize(
    ("fields", "field", "description"),
    [
        ({}, "count", "the batch is empty: send 1 or more rows"),
        ({"count": -5}, "count", "is -5: send 1 or more rows"),
        ({"count": 1025}, "count", "1025 rows are more than the 1024 rows of one call"),
        ({"count": 1, "temperature": -0.5}, "temperature", "is -0.5, it must be from 0 to 1e+06"),
        ({"count": 1, "temperature": float("nan")}, "temperature", "is nan, it must be from 0 to 1e+06"),
        ({"count": 1, "temperature": float("inf")}, "temperature", "is inf, it must be from 0 to 1e+06"),
        ({"count": 1, "temperature": 3e38}, "temperature", "is 3e+38, it must be from 0 to 1e+06"),
        (
            {"count": 2, "first_row": 2**64 - 1},
            "first_row",
            "rows 18446744073709551615 to 18446744073709551616 exceed the highest row, 2^64 - 1",
        ),
    ],
)
def test_bad_samples(
    stub: vae_pb2_grpc.VaeServiceStub, fields: dict[str, Any], field: str, description: str
) -> None:
    """A sample needs a count, a finite temperature and rows that exist."""
    refusal = refused(stub.Sample, pb.SampleRequest(**fields))
    assert (refusal.code, refusal.violations) == (INVALID, {field: description})


@pytest.mark.parametrize(
    ("draws", "description"),
    [
        (-1, "is -1, it must be 0 (posterior mean) or more"),
        (342, "3 images x 342 samples are more than 1024 rows a call"),
    ],
)
def test_bad_draws(stub: vae_pb2_grpc.VaeServiceStub, draws: int, description: str) -> None:
    """Draws count as rows, and are not negative."""
    refusal = refused(stub.Score, pb.ScoreRequest(pixels=pixels(IMAGES), num_samples=draws))
    assert (refusal.code, refusal.violations) == (INVALID, {"num_samples": description})


@pytest.mark.parametrize(
    ("model", "code", "message"),
    [
        (
            pb.ModelRef(name="nothing"),
            NOT_FOUND,
            "no model 'nothing' on this server: ListModels lists the models",
        ),
        (pb.ModelRef(name="tiny", version=9), NOT_FOUND, "model 'tiny' has no version 9: ListModels lists"),
        (
            pb.ModelRef(name="tiny", version=1),
            PRECONDITION,
            "version 1 of model 'tiny' is published but not loaded; the default version is 2",
        ),
        (
            pb.ModelRef(name="tiny", version=-1),
            INVALID,
            "model.version: is -1, it must be >= 1, or 0 for the default",
        ),
        (
            pb.ModelRef(),
            INVALID,
            "model.name: is empty, and this server has several models: colour, plain, tiny",
        ),
    ],
)
def test_models_that_cannot_be_called(
    zoo: vae_pb2_grpc.VaeServiceStub, model: pb.ModelRef, code: grpc.StatusCode, message: str
) -> None:
    """Every call says what is wrong with its model reference."""
    requests: dict[str, Any] = {
        "Encode": pb.EncodeRequest(model=model, pixels=pixels(IMAGES)),
        "Decode": pb.DecodeRequest(model=model, latents=vectors(LATENTS)),
        "Sample": pb.SampleRequest(model=model, count=1),
        "Reconstruct": pb.ReconstructRequest(model=model, pixels=pixels(IMAGES)),
        "Score": pb.ScoreRequest(model=model, pixels=pixels(IMAGES)),
        "GetModel": pb.GetModelRequest(model=model),
    }
    for method, request in requests.items():
        refusal = refused(getattr(zoo, method), request)
        assert refusal.code is code
        assert refusal.message.startswith(message)


def test_long_names_do_not_change_the_status(zoo: vae_pb2_grpc.VaeServiceStub) -> None:
    """Text of a caller is not sent back at a length that no header holds."""
    refusal = refused(zoo.GetModel, pb.GetModelRequest(model=pb.ModelRef(name="x" * 100_000)))
    assert refusal.code is NOT_FOUND
    assert len(refusal.message) < 600


@pytest.mark.usefixtures("each_front")
def test_many_models_do_not_change_the_status(tmp_path: Path) -> None:
    """A server of many models names some of them, in a message that a header holds."""
    for index in range(60):
        publish_tiny(tmp_path, f"model-with-a-long-name-to-fill-the-header-{index:02}")
    with serving(tmp_path) as server, stub_of(server.target) as stub:
        refusal = refused(stub.Sample, pb.SampleRequest(count=1))
    assert refusal.code is INVALID
    assert refusal.violations["model.name"].endswith(", …")


def test_a_message_of_empty_files_is_counted_before_it_is_copied(stub: vae_pb2_grpc.VaeServiceStub) -> None:
    """Millions of empty files are one cheap refusal."""
    refusal = refused(stub.Encode, pb.EncodeRequest(files=[b""] * 3_000_000))
    assert (refusal.code, refusal.violations) == (
        INVALID,
        {"files": "the message has more than 2048 fields, up to here"},
    )


def test_an_autoencoder_neither_samples_nor_scores(zoo: vae_pb2_grpc.VaeServiceStub) -> None:
    """`ae` has no prior and no rate, and says what it can do."""
    plain = pb.ModelRef(name="plain")
    for method, request in {
        "sample": pb.SampleRequest(model=plain, count=1),
        "score": pb.ScoreRequest(model=plain, pixels=pixels(IMAGES)),
    }.items():
        refusal = refused(getattr(zoo, method.capitalize()), request)
        assert refusal.code is PRECONDITION
        assert refusal.reason == "CAPABILITY_MISSING"
        assert refusal.message == f"model 'plain' (ae) cannot {method}: it can encode, decode, reconstruct"


def test_one_bad_call_among_forty_fails_alone(stub: vae_pb2_grpc.VaeServiceStub) -> None:
    """Calls that are on their way together do not share their faults."""
    futures = []
    for index in range(40):
        files = [b"bad"] if index == 20 else [png(IMAGES[0])]
        futures.append(stub.Encode.future(pb.EncodeRequest(files=files), timeout=TIMEOUT_S))
    codes = [future.code() for future in futures]
    assert codes.pop(20) is INVALID
    assert set(codes) == {grpc.StatusCode.OK}


@pytest.mark.usefixtures("each_front")
def test_files_above_the_message_limit_are_refused_by_the_service(tiny_root: Path) -> None:
    """A message over the service's limit gets an answer that says so, not gRPC's "busy"."""
    with serving(tiny_root, "--max-message-bytes", "65536") as server, stub_of(server.target) as stub:
        refusal = refused(stub.Encode, pb.EncodeRequest(files=[b"x" * 40_000] * 2))
    assert refusal.code is INVALID
    assert refusal.violations == {"request": "has 80008 bytes, more than the 65536 of one call"}


def test_rows_are_limited_by_what_a_message_holds(tiny_root: Path) -> None:
    """Rows per call follow from the message limit where that is the tighter one, and GetModel says so."""
    with serving(tiny_root, "--max-message-bytes", "65536") as server, stub_of(server.target) as stub:
        limit = stub.GetModel(pb.GetModelRequest(), timeout=TIMEOUT_S).limits.max_rows_per_call
        assert limit == (65536 - 4096) // (48 + 2 * 16)
        stub.Sample(pb.SampleRequest(count=limit), timeout=TIMEOUT_S)
        refusal = refused(stub.Sample, pb.SampleRequest(count=limit + 1))
    assert refusal.violations == {"count": f"{limit + 1} rows are more than the {limit} rows of one call"}


def test_request_id_comes_back(stub: vae_pb2_grpc.VaeServiceStub) -> None:
    """The caller's id, or a new one, is in the trailing metadata of answers and errors."""
    request = pb.SampleRequest(count=0)
    refusal = refused(stub.Sample, request, metadata=(("x-request-id", "abc-1"),))
    assert refusal.metadata["x-request-id"] == "abc-1"
    _, call = stub.Sample.with_call(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
    assert len(dict(call.trailing_metadata())["x-request-id"]) == 16
