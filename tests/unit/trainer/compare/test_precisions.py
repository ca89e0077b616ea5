"""The precisions of a version side by side."""

import shutil
from pathlib import Path

import pytest

from convvae_service.bundle import BundleError
from convvae_trainer.commands.compare import CompareOptions, run_compare
from convvae_trainer.commands.quantize import QuantizeOptions, run_quantize
from convvae_trainer.compare.precision_table import precision_table
from convvae_trainer.compare.precisions import measure_precisions
from convvae_trainer.compare.published import find_versions
from convvae_trainer.data.dataset import Dataset
from support.spoilt_bundle import flip_a_bit
from support.tiny_bundle import SHAPE, publish_tiny
from support.wire import random_images


@pytest.fixture(scope="module")
def quantised(published_pair: tuple[Path, Dataset], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with `blobs` and `blobs-ae`, whose second versions have every precision."""
    models = tmp_path_factory.mktemp("quantised") / "models"
    shutil.copytree(published_pair[0], models)
    for name in ("blobs", "blobs-ae"):
        options = QuantizeOptions(
            model=str(models / name), dataset=published_pair[1].name, precisions=("int8", "fp16")
        )
        run_quantize(options)
    return models


def test_each_precision_has_a_line_in_the_report(
    quantised: Path, published_pair: tuple[Path, Dataset], tmp_path: Path
) -> None:
    """fp32 comes first and is exact; int8 is smaller, and its figures are those of the manifest."""
    options = CompareOptions(
        models=[str(quantised / "blobs"), str(quantised / "blobs-ae"), str(quantised / "blobs@1")],
        dataset=published_pair[1].name,
        out=tmp_path / "report.html",
        scatter=False,
        frechet=False,
    )
    comparison = run_compare(options)
    found = {(row.label, row.precision): row for row in comparison.precisions}
    assert [key for key, _ in zip(found, range(3), strict=False)] == [
        ("blobs@2", "fp32"),
        ("blobs@2", "fp16"),
        ("blobs@2", "int8"),
    ]
    assert {label for label, _ in found} == {"blobs@2", "blobs-ae"}
    manifest = comparison.models[0].published.manifest
    fp32, int8 = found["blobs@2", "fp32"], found["blobs@2", "int8"]
    assert fp32.accuracy.cosine_mean == pytest.approx(1)
    assert int8.accuracy == manifest.accuracy["int8"]
    assert fp32.elbo is not None
    assert int8.accuracy.elbo_change is not None
    assert int8.elbo == fp32.elbo + int8.accuracy.elbo_change
    assert found["blobs-ae", "int8"].elbo is None
    assert int8.bytes == sum(graph.bytes for graph in manifest.graphs if graph.precision == "int8")
    assert min(min(row.encode_rows_s, row.decode_rows_s) for row in comparison.precisions) > 0
    assert len(comparison.to_json_object()["precisions"]) == 6
    page = (tmp_path / "report.html").read_text()
    assert "<h2>Precisions</h2>" in page
    assert page.count("<small>int8</small>") == 2


def test_versions_with_one_precision_have_no_table(published_pair: tuple[Path, Dataset]) -> None:
    """There is nothing to put side by side."""
    versions = find_versions([str(published_pair[0] / "blobs")])
    assert measure_precisions(versions, published_pair[1].test) == []


def test_graphs_that_compute_another_model_show_it(tmp_path: Path) -> None:
    """A wrong int8 graph has a low cosine, whatever its manifest states."""
    publish_tiny(tmp_path, precisions=("fp32", "int8"))
    images = random_images(20, *SHAPE.as_tuple)
    fp32, int8 = measure_precisions(find_versions([str(tmp_path / "tiny")]), images)
    assert fp32.accuracy.cosine_p01 == pytest.approx(1)
    assert int8.accuracy.cosine_mean < 0.9
    assert f"<td>{int8.accuracy.cosine_mean:.5f}</td>" in precision_table([fp32, int8])


def test_a_damaged_version_is_named(tmp_path: Path) -> None:
    """The error has the folder of the version."""
    folder = publish_tiny(tmp_path, precisions=("fp32", "int8"))
    versions = find_versions([str(tmp_path / "tiny")])
    flip_a_bit(folder)
    with pytest.raises(BundleError, match=r"tiny/1: .* is damaged"):
        measure_precisions(versions, random_images(2, *SHAPE.as_tuple))
