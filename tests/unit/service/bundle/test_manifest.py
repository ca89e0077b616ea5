import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convvae_service.bundle import (
    BundleError,
    ImageShape,
    LikelihoodSpec,
    Manifest,
    check_model_name,
    read_manifest,
)
from support.tiny_bundle import LATENT_DIM, publish_tiny

MEAN_ALONE = [{"name": "mean", "dtype": "float32", "shape": ["batch", LATENT_DIM]}]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(publish_tiny(tmp_path_factory.mktemp("models")))


def changed(manifest: Manifest, path: str, value: Any) -> str:
    """Return the manifest's JSON with one value replaced, or deleted where `value` is `...`."""
    content = json.loads(manifest.to_json())
    *parents, last = path.split(".")
    place = content
    for parent in parents:
        place = place[int(parent)] if isinstance(place, list) else place[parent]
    key: Any = int(last) if isinstance(place, list) else last
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return json.dumps(content)


def test_survives_json(manifest: Manifest) -> None:
    """A written manifest is read back with every field."""
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "schema_version",
            4,
            "but this program reads versions up to 3: upgrade convvae",
        ),
        ("schema_version", "1", "manifest schema_version is '1', not a positive integer"),
        ("schema_version", True, "manifest schema_version is True, not a positive integer"),
        ("schema_version", ..., "manifest schema_version is None, not a positive integer"),
        ("model", ..., "manifest lacks the key 'model'"),
        ("model", 7, "manifest.model is 7, not str"),
        ("model", "../up", "'../up' is not a model name"),
        ("model", "liveness", "'liveness' is reserved for the health service"),
        ("colour", 1, "manifest has the unknown key 'colour'"),
        ("image.height", 0, "image is 0x6: height and width must be 1 to 4096"),
        ("image.height", 8.5, "manifest.image.height is 8.5, not int"),
        ("image.height", True, "manifest.image.height is True, not int"),
        ("image.channels", 2, "image.channels is 2: it must be 1 (grey) or 3 (RGB)"),
        ("latent_dim", 0, "latent_dim is 0: it must be 1 to 65536"),
        ("latent_dim", 5, "inputs or outputs of encoder.onnx contradict image or latent_dim"),
        ("objective", "VAE 2", "objective is 'VAE 2': use 1 to 64 lower-case letters, digits and '-'"),
        ("likelihood.name", "poisson", "likelihood.name is 'poisson': it must be one of bernoulli, gaussian"),
        ("likelihood.sigma", 0.1, "likelihood.sigma does not belong to 'bernoulli'"),
        ("likelihood.probability_clamp", None, "likelihood.probability_clamp of 'bernoulli' must be above 0"),
        ("likelihood.probability_clamp", 0.5, "likelihood.probability_clamp must be below 0.5"),
        ("capabilities", ["fly"], "unknown capabilities ['fly']"),
        ("capabilities", "encode", "manifest.capabilities is not a list"),
        ("graphs", [], "no encoder graph is listed"),
        ("graphs.0.bytes", -5, "the manifest states -5 bytes for encoder.onnx"),
        ("training.metrics", {"elbo": float("nan")}, "manifest is not valid JSON: NaN is not a JSON number"),
        ("graphs.0.outputs", MEAN_ALONE, "sample and score need a log_variance output of the encoder"),
        ("graphs.0.file", "../encoder.onnx", "'../encoder.onnx' is not a plain file name"),
        ("graphs.0.file", "/etc/passwd", "'/etc/passwd' is not a plain file name"),
        ("graphs.0.file", "..", "'..' is not a plain file name"),
        ("graphs.0.sha256", "abc", "sha256 of encoder.onnx is not 64 lower-case hexadecimal digits"),
        (
            "graphs.0.role",
            "discriminator",
            "manifest.graphs[0].role is 'discriminator': it must be one of encoder, decoder",
        ),
        ("graphs.1.role", "encoder", "two fp32 encoder graphs: at most one is allowed"),
        ("graphs.0.inputs.0.dtype", "float64", "manifest.graphs[0].inputs[0].dtype is 'float64'"),
        ("graphs.0.inputs.0.name", "pixels", "inputs or outputs of encoder.onnx contradict"),
        ("resize.filter", "magic", "manifest.resize.filter is 'magic': it must be one of nearest, box"),
        ("training", [], "manifest.training is not a JSON object"),
        ("parity.fp32", ..., "parity has no entry for the fp32 graphs, so their results are not checked"),
        ("accuracy.fp32", ..., "accuracy has no entry for the fp32 graphs, so their results are not checked"),
        ("graphs.1.precision", "int8", "parity has no entry for the int8 graphs"),
        ("accuracy.fp32.images", 0.5, "manifest.accuracy.fp32.images is 0.5, not int"),
        ("parity.fp32.mean", "small", "manifest.parity.fp32.mean is 'small', not float"),
    ],
)
def test_each_fault_is_named(manifest: Manifest, path: str, value: Any, message: str) -> None:
    """A wrong manifest is refused with the key and what is wrong with it."""
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(changed(manifest, path, value))
    assert message in str(caught.value)


def test_a_manifest_of_version_1_needs_no_accuracy_of_fp32(manifest: Manifest) -> None:
    """It is from before the key. Its graphs of another precision are refused, whoever put them there."""
    old = json.loads(changed(manifest, "accuracy", ...)) | {"schema_version": 1}
    assert Manifest.from_json(json.dumps(old)).accuracy == {}
    for graph in old["graphs"]:
        graph["precision"] = "int8"
    old["parity"]["int8"] = old["parity"]["fp32"]
    with pytest.raises(BundleError, match="accuracy has no entry for the int8 graphs"):
        Manifest.from_json(json.dumps(old))


def test_an_objective_of_any_name_is_read(manifest: Manifest) -> None:
    """Capabilities and outputs must agree with the objective."""
    assert Manifest.from_json(changed(manifest, "objective", "beta-vae-2")).has_log_variance


@pytest.mark.parametrize("text", ["", "[]", "nul", '{"schema_version": NaN}', "[" * 100_000])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    """Other JSON, and text that is not JSON, are refused."""
    with pytest.raises(BundleError, match="manifest"):
        Manifest.from_json(text)


def places(value: Any, path: str = "") -> list[str]:
    """Return the path of every value inside a JSON value."""
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    found = []
    for key, child in children:
        found += [f"{path}{key}", *places(child, f"{path}{key}.")]
    return found


# Each is the JSON text of a value.
ODD_VALUES = [
    *(
        "null",
        "true",
        "0",
        "-1",
        "1.5",
        "-0.0",
        "1e300",
        "1e400",
        "NaN",
        "-Infinity",
        '""',
        "[]",
        "{}",
        "[[]]",
    ),
    *(
        "1" + "0" * 18,
        "1" + "0" * 400,
        "-" + "9" * 5000,
        "1e-400",
        "18446744073709551616",
        "01",
        "'x'",
        "1,2",
    ),
    *('"\\ud800"', '"\\u0000"', '"\\u001b[31m\\n"', '"é"', '"' + "x" * 100_000 + '"', "[" * 900 + "]" * 900),
    *("[" * 100_000, '{"a": 1, "a": 2}', '{"\\udfff": 1}', "[1, 2, 3]", '{"fp32": null}', "[null]", '"fp32"'),
    '{"' + "k" * 10_000 + '": 1}',
]


def test_any_odd_value_in_any_place_is_read_or_refused(manifest: Manifest) -> None:
    """Each field of a manifest, with each odd value: a manifest that can be written again, or one line."""
    for path in places(json.loads(manifest.to_json())):
        for text in ODD_VALUES:
            spoilt = changed(manifest, path, "@@").replace('"@@"', text)
            read, error = None, "a line"
            try:
                read = Manifest.from_json(spoilt)
            except BundleError as refusal:
                error = str(refusal)
            assert error.isprintable()
            assert len(error) <= 500
            if read is not None:
                assert Manifest.from_json(read.to_json()) == read
                read.to_json().encode()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig", "utf-16-le"])
def test_a_manifest_is_utf_8(manifest: Manifest, encoding: str) -> None:
    """Other encodings and a byte order mark are refused."""
    with pytest.raises(BundleError, match="manifest is not valid JSON"):
        Manifest.from_json(manifest.to_json().encode(encoding))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 900 + "]" * 900, "manifest: it is nested more than 32 levels deep"),
        ("[" * 500_000, "manifest: it is nested more than 32 levels deep"),
        ("1" + "0" * 5000, "manifest: the integer 10000000000000000000… has more than 64 bits"),
        ("1e400", "manifest: the number 1e400 is larger than a float can be"),
        ('"\\ud800"', "manifest: a text has half of a surrogate pair"),
        ('{"b": 1, "b": 2}', "manifest: it has the key 'b' twice in one object"),
    ],
)
def test_each_fault_of_the_json_is_named(manifest: Manifest, text: str, message: str) -> None:
    """Metrics may have any names and values, and these are refused in them too."""
    spoilt = changed(manifest, "training.metrics", {"x": "@@"}).replace('"@@"', text)
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(spoilt)
    assert str(caught.value) == message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_any_value_anywhere_is_read_or_refused(manifest: Manifest, data: st.DataObject) -> None:
    """Any value in any place gives a manifest or `BundleError`."""
    path = data.draw(st.sampled_from(places(json.loads(manifest.to_json()))))
    value = data.draw(json_values)
    try:
        read = Manifest.from_json(changed(manifest, path, value))
    except BundleError:
        return
    assert Manifest.from_json(read.to_json()) == read


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Any bytes that are not a manifest raise `BundleError`."""
    with pytest.raises(BundleError):
        Manifest.from_json(data)


@pytest.mark.parametrize("name", ["mnist", "A.b-c_9", "0", "x" * 64])
def test_model_names(name: str) -> None:
    """Letters, digits, dots, dashes and underscores make a name."""
    assert check_model_name(name) == name


@pytest.mark.parametrize("name", ["", ".hidden", "-flag", "a/b", "a b", "é", "x" * 65, "a\n", "liveness"])
def test_bad_model_names(name: str) -> None:
    """A name that cannot be a folder, a flag's value or a health name is refused."""
    with pytest.raises(BundleError):
        check_model_name(name)


def test_constants_must_fit_their_likelihood() -> None:
    """A Gaussian without sigma, or with a sigma of 0, is refused."""
    for sigma in (None, 0.0, -1.0, float("nan")):
        with pytest.raises(BundleError, match=r"likelihood\.sigma of 'gaussian' must be above 0"):
            LikelihoodSpec(name="gaussian", sigma=sigma)


def test_image_shape_reads_as_a_size() -> None:
    """Messages show a shape as height x width x channels."""
    assert str(ImageShape(height=28, width=20, channels=1)) == "28x20x1"


def test_manifest_larger_than_its_limit_is_refused(tmp_path: Path) -> None:
    """A manifest of megabytes is not read into memory."""
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(" " * (1 << 20) + "{}")
    with pytest.raises(BundleError, match=r"manifest\.json is larger than 1048576 bytes"):
        read_manifest(folder)
