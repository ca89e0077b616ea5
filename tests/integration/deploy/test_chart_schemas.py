"""Every object of the chart is one that Kubernetes accepts, by `helm lint` and by kubeconform."""

from pathlib import Path

import pytest

from support.chart import CHART, KUBERNETES, VALUES, run, template
from support.kubernetes_schemas import write_extensions, write_kubernetes

SETS = sorted(path.stem for path in VALUES.glob("*.yaml"))


@pytest.fixture(scope="module", params=KUBERNETES)
def kubernetes(request: pytest.FixtureRequest) -> str:
    """A version of Kubernetes."""
    version: str = request.param
    return version


@pytest.fixture(scope="module")
def schemas(kubernetes: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of schemas of this version."""
    folder = tmp_path_factory.mktemp("schemas")
    write_kubernetes(folder, kubernetes)
    write_extensions(folder)
    return folder


@pytest.mark.parametrize("values", SETS)
def test_helm_lint_is_clean(values: str) -> None:
    """Helm finds nothing to warn of."""
    done = run("helm", "lint", CHART, "--strict", "--values", VALUES / f"{values}.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout
    assert "Fail:" not in done.stderr


def conforms(manifests: Path, schemas: Path) -> str:
    """Return what kubeconform finds wrong, or an empty text."""
    location = f"{schemas}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
    done = run("kubeconform", "-strict", "-schema-location", location, manifests)
    assert (done.returncode == 0) == (done.stdout + done.stderr == ""), done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("values", SETS)
def test_objects_conform(values: str, kubernetes: str, schemas: Path, tmp_path: Path) -> None:
    """All objects, those of extensions too, have only fields that exist, with values of their types."""
    if values == "gpu" and kubernetes == KUBERNETES[0]:
        return  # Models in an image: the next test.
    done = template(values, kubernetes=kubernetes)
    assert done.returncode == 0, done.stderr
    (tmp_path / "all.yaml").write_text(done.stdout)
    assert conforms(tmp_path / "all.yaml", schemas) == ""


@pytest.mark.parametrize(
    ("right", "wrong", "found"),
    [
        ("terminationGracePeriodSeconds:", "terminationGracePeriod:", "'terminationGracePeriod' not allowed"),
        ("maxUnavailable: 25%", "maxUnavailable: [1]", "maxUnavailable"),
        ("minReplicaCount:", "minReplicas:", "'minReplicas' not allowed"),
    ],
)
def test_a_wrong_object_would_be_found(right: str, wrong: str, found: str, tmp_path: Path) -> None:
    """The check above is not blind: an unknown field, a wrong type, and an unknown field of an extension."""
    write_kubernetes(tmp_path, KUBERNETES[-1])
    write_extensions(tmp_path)
    manifests = template("gpu").stdout
    assert right in manifests
    (tmp_path / "all.yaml").write_text(manifests.replace(right, wrong))
    assert found in conforms(tmp_path / "all.yaml", tmp_path)


def test_models_in_an_image_need_a_newer_kubernetes(kubernetes: str, schemas: Path, tmp_path: Path) -> None:
    """The oldest Kubernetes that the chart supports has no volume `image`, as values.yaml says."""
    (tmp_path / "all.yaml").write_text(template("gpu", kubernetes=kubernetes).stdout)
    found = conforms(tmp_path / "all.yaml", schemas)
    assert ("'image' not allowed" in found) == (kubernetes == KUBERNETES[0])
