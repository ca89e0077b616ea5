"""`convvae-train triton`, read with Triton's own `ModelConfig` and run with the inputs that it declares."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from convvae_service.bundle import ROLES, read_bundle
from support.ended import Ended

ROOT = Path(__file__).parents[2]
TRITON = ROOT / ".tools" / "tritonclient-venv" / "bin" / "python"
# A second protobuf pool: Triton's messages have names that the server's have too.
PARSE = """
import json, sys
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
config = model_config_pb2.ModelConfig()
text_format.Parse(open(sys.argv[1]).read(), config)
print(json.dumps(json_format.MessageToDict(config, preserving_proto_field_name=True)))
"""
DTYPES = {"TYPE_UINT8": np.uint8, "TYPE_FP32": np.float32}


def triton(*words: Any) -> Ended:
    done = subprocess.run(
        [sys.executable, "-m", "convvae_trainer", "triton", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def parsed(folder: Path) -> dict[str, Any]:
    """Return the config of a model, as Triton reads it."""
    if not TRITON.exists():
        pytest.skip("tritonclient is not installed: make tools")
    done = subprocess.run(
        [TRITON, "-c", PARSE, folder / "config.pbtxt"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    config: dict[str, Any] = json.loads(done.stdout)
    return config


@pytest.mark.slow
def test_triton_reads_the_config_and_the_graphs_take_its_inputs(zoo_root: Path, tmp_path: Path) -> None:
    """Names, types and sizes of each row are the graph's, for one row and for a whole batch."""
    out = tmp_path / "repository"
    words = ("--kind", "cpu", "--instances", 3, "--max-batch-size", 5, "--max-queue-delay-us", 200)
    ended = triton(zoo_root / "colour", "--out", out, *words)
    assert (ended.code, ended.err) == (0, "")
    assert sorted(folder.name for folder in out.iterdir()) == ["colour.decoder", "colour.encoder"]
    for folder in out.iterdir():
        config = parsed(folder)
        assert config["name"] == folder.name
        assert config["backend"] == "onnxruntime"
        assert config["max_batch_size"] == 5
        assert config["dynamic_batching"] == {"max_queue_delay_microseconds": "200"}
        assert config["instance_group"] == [{"kind": "KIND_CPU", "count": 3}]
        assert config["parameters"] == {"intra_op_thread_count": {"string_value": "1"}}
        assert [warm["batch_size"] for warm in config["model_warmup"]] == [1, 5]
        session = onnxruntime.InferenceSession(
            (folder / "1" / "model.onnx").read_bytes(), providers=["CPUExecutionProvider"]
        )
        for rows in (1, 5):
            feeds = {
                each["name"]: np.zeros((rows, *map(int, each["dims"])), DTYPES[each["data_type"]])
                for each in config["input"]
            }
            outputs = session.run([each["name"] for each in config["output"]], feeds)
            for each, values in zip(config["output"], outputs, strict=True):
                assert values.dtype == DTYPES[each["data_type"]]
                assert values.shape == (rows, *map(int, each["dims"]))
        (warm_input,) = config["model_warmup"][0]["inputs"].values()
        assert warm_input["dims"] == config["input"][0]["dims"]


def test_the_graphs_and_the_version_are_the_bundles(zoo_root: Path, tmp_path: Path) -> None:
    """A version that is named is written under its number, byte by byte; JSON names the folders."""
    ended = triton(f"{zoo_root / 'tiny'}@2", "--out", tmp_path / "r", "--json")
    assert ended.code == 0
    folders = json.loads(ended.out)["folders"]
    bundle = read_bundle(zoo_root / "tiny" / "2")
    for folder, role in zip(folders, ROLES, strict=True):
        assert [path.name for path in Path(folder).iterdir() if path.is_dir()] == ["2"]
        assert (Path(folder) / "2" / "model.onnx").read_bytes() == bundle.graphs[role, "fp32"]


def test_an_autoencoder_has_no_log_variance(zoo_root: Path, tmp_path: Path) -> None:
    """The config lists the outputs that the graph has."""
    assert triton(zoo_root / "plain", "--out", tmp_path).code == 0
    assert "log_variance" not in (tmp_path / "plain.encoder" / "config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ROOT/nobody", "--out", "OUT"), "nobody': there is /"),
        (("ROOT/tiny@9", "--out", "OUT"), "has no version '9': it has 1, 2"),
        (("ROOT/tiny", "--out", "OUT", "--precision", "int8"), "has no graphs in int8: it has fp32"),
        (("ROOT/tiny", "--out", "OUT", "--precision", "fp8"), "--precision is 'fp8': it must be fp32, fp16"),
        (("ROOT/tiny", "--out", "OUT", "--kind", "tpu"), "--kind is 'tpu': it must be auto, cpu, gpu"),
        (("ROOT/tiny", "--out", "FILE"), "cannot be written"),
        (("ROOT/tiny", "--out", "FULL"), "tiny.decoder exists: remove it, or give another --out"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    zoo_root: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    """Nothing is written, and nothing is left."""
    full = tmp_path / "full"
    (full / "tiny.decoder").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    places = {"OUT": tmp_path / "out", "FILE": tmp_path / "file" / "below", "FULL": full}
    given = [str(places.get(word, word.replace("ROOT", str(zoo_root)))) for word in words]
    ended = triton(*given)
    assert ended.code in (1, 2)
    assert len(ended.err.splitlines()) == 1
    assert message in ended.err
    assert not (tmp_path / "out").exists()
    assert [path.name for path in full.iterdir()] == ["tiny.decoder"]
