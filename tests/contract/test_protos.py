"""The wire contract's source, its comments, and the stubs that are checked in beside it."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from convvae.v1 import vae_pb2

ROOT = Path(__file__).parents[2]
PROTOS = ROOT / "protos"
VAE = "convvae/v1/vae.proto"
STUBS = [
    f"{proto}_pb2{kind}"
    for proto in ("convvae/v1/vae", "open_inference/inference")
    for kind in (".py", ".pyi", "_grpc.py", "_grpc.pyi")
]
BUF = ROOT / ".tools" / "bin" / "buf"


def run(command: Sequence[str | Path], *, cwd: Path = ROOT, **settings: str) -> str:
    """Run `command` and return its output; a failure shows it."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def compiled(protos: Path, folder: Path) -> descriptor_pb2.FileDescriptorProto:
    """Return the descriptor of `protos`'s contract with its comments, by this environment's protoc."""
    target = folder / "descriptors"
    run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I", protos),
            *("--include_source_info", f"--descriptor_set_out={target}", VAE),
        ]
    )
    return descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file[0]


def edited_protos(folder: Path, old: str, new: str) -> Path:
    """Return a copy of the protos folder in which the contract has `new` for `old`."""
    protos = folder / "protos"
    shutil.copytree(PROTOS, protos)
    text = (protos / VAE).read_text()
    assert old in text
    (protos / VAE).write_text(text.replace(old, new, 1))
    return protos


def uncommented(file: descriptor_pb2.FileDescriptorProto) -> list[str]:
    """Return the elements of `file` that have no comment before them."""
    commented = {tuple(place.path) for place in file.source_code_info.location if place.leading_comments}
    return [name for path, name in elements(file) if path not in commented]


def elements(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield (path in the descriptor, name) of each service, method, message, field, enum and value."""
    for i, service in enumerate(file.service):
        yield (6, i), service.name
        for j, method in enumerate(service.method):
            yield (6, i, 2, j), f"{service.name}.{method.name}"
    for i, message in enumerate(file.message_type):
        yield from message_elements((4, i), message, message.name)
    for i, enum in enumerate(file.enum_type):
        yield from enum_elements((5, i), enum, enum.name)


def message_elements(
    path: tuple[int, ...], message: descriptor_pb2.DescriptorProto, name: str
) -> Iterator[tuple[tuple[int, ...], str]]:
    if message.options.map_entry:
        return
    yield path, name
    for i, field in enumerate(message.field):
        yield (*path, 2, i), f"{name}.{field.name}"
    for i, nested in enumerate(message.nested_type):
        yield from message_elements((*path, 3, i), nested, f"{name}.{nested.name}")
    for i, enum in enumerate(message.enum_type):
        yield from enum_elements((*path, 4, i), enum, f"{name}.{enum.name}")


def enum_elements(
    path: tuple[int, ...], enum: descriptor_pb2.EnumDescriptorProto, name: str
) -> Iterator[tuple[tuple[int, ...], str]]:
    yield path, name
    for i, value in enumerate(enum.value):
        yield (*path, 2, i), f"{name}.{value.name}"


@pytest.fixture(scope="module")
def floor_python() -> Path:
    """The Python of the oldest supported toolchain, which `make protos` uses too."""
    # Tests in other processes want the same environment: the first makes it, the others wait.
    with (PROTOS / "requirements.txt").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(["make", ".venv-protos/installed"])
    return ROOT / ".venv-protos" / "bin" / "python"


def drifted(tree: Path, out: Path) -> list[str]:
    """Generate the stubs of `tree`'s contract and return those that differ from the ones checked in."""
    run(["make", "-f", ROOT / "Makefile", "protos", f"PROTOS_OUT={out}"], cwd=tree)
    assert {str(path.relative_to(out)) for path in out.rglob("*.py*")} == set(STUBS)
    return [name for name in STUBS if (out / name).read_bytes() != (PROTOS / name).read_bytes()]


def test_buf_lint_is_clean() -> None:
    """The protos follow buf's STANDARD and COMMENTS rules."""
    if not BUF.exists():
        pytest.skip("buf is not in .tools: run `make tools`")
    assert run([BUF, "lint"], cwd=PROTOS) == ""


def test_every_element_has_a_comment(tmp_path: Path) -> None:
    """Each service, method, message, field, enum and enum value of the contract says what it is."""
    file = compiled(PROTOS, tmp_path)
    assert len(list(elements(file))) > 80
    assert uncommented(file) == []


def test_a_missing_comment_is_found(tmp_path: Path) -> None:
    """The check above is not blind: without its comment, a field is named."""
    protos = edited_protos(tmp_path, "  // Number of vectors, at least 1.\n", "")
    assert uncommented(compiled(protos, tmp_path)) == ["Vectors.count"]


def test_stubs_describe_the_contract(tmp_path: Path) -> None:
    """The descriptor inside the stubs is what this environment's protoc makes of the contract."""
    file = compiled(PROTOS, tmp_path)
    file.ClearField("source_code_info")
    # protoc adds these to descriptor files alone.
    for message in file.message_type:
        for field in message.field:
            field.ClearField("json_name")
    stub = descriptor_pb2.FileDescriptorProto()
    vae_pb2.DESCRIPTOR.CopyToProto(stub)
    assert stub == file


@pytest.mark.slow
def test_stubs_have_not_drifted(tmp_path: Path, floor_python: Path) -> None:
    """`make protos` would change nothing: all stubs are, byte for byte, those checked in."""
    assert drifted(ROOT, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("float temperature = 5;", "float temperature = 5;\n  bool extra = 6;", {".py", ".pyi"}),
        ("// Number of vectors, at least 1.", "// Number of vectors.", {".pyi"}),
        ("rpc Decode(", "rpc Decodes(", {".py", "_grpc.py", "_grpc.pyi"}),
    ],
    ids=["field", "comment", "method"],
)
def test_drift_is_found(tmp_path: Path, floor_python: Path, old: str, new: str, expected: set[str]) -> None:
    """The check above is not blind: stubs of a changed contract differ from those checked in."""
    edited_protos(tmp_path, old, new)
    (tmp_path / ".venv-protos").symlink_to(ROOT / ".venv-protos")
    assert set(drifted(tmp_path, tmp_path / "out")) == {f"convvae/v1/vae_pb2{kind}" for kind in expected}


FLOOR_PROGRAM = """
import json, sys
import google.protobuf, grpc
from convvae.v1 import vae_pb2, vae_pb2_grpc

request = vae_pb2.ScoreRequest.FromString(sys.stdin.buffer.read())
assert request.HasField("seed") and request.seed == 2**64 - 1, request
reply = vae_pb2.SampleResponse(
    model=vae_pb2.ServedModel(name=request.model.name, version=request.model.version, precision="fp32"),
    images=request.pixels,
    seed=request.seed,
)
print(json.dumps({
    "protobuf": google.protobuf.__version__,
    "grpc": grpc.__version__,
    "methods": sorted(name for name in vars(vae_pb2_grpc.VaeServiceServicer) if name[0] != "_"),
    "reply": reply.SerializeToString().hex(),
}))
"""


@pytest.mark.slow
def test_stubs_load_in_the_oldest_and_the_newest_runtime(tmp_path: Path, floor_python: Path) -> None:
    """Messages pass both ways between protobuf 6 with the floor's grpcio and what is installed here."""
    # Without convvae/__init__.py: the client's own dependencies are not what is tested.
    shutil.copytree(PROTOS / "convvae" / "v1", tmp_path / "convvae" / "v1")
    request = vae_pb2.ScoreRequest(
        model=vae_pb2.ModelRef(name="mnist", version=3),
        pixels=vae_pb2.Pixels(data=bytes(range(12)), count=2, height=3, width=2, channels=1),
        seed=2**64 - 1,
    )
    done = subprocess.run(
        [floor_python, "-W", "error", "-c", FLOOR_PROGRAM],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        input=request.SerializeToString(),
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    floor = json.loads(done.stdout)
    assert floor["protobuf"].startswith("6.")
    assert floor["grpc"].startswith("1.76.")
    assert floor["methods"] == sorted(
        method.name for method in vae_pb2.DESCRIPTOR.services_by_name["VaeService"].methods
    )
    reply = vae_pb2.SampleResponse.FromString(bytes.fromhex(floor["reply"]))
    assert reply.model == vae_pb2.ServedModel(name="mnist", version=3, precision="fp32")
    assert reply.images == request.pixels
    assert reply.seed == 2**64 - 1
