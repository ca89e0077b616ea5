"""The chart scales by CPU and by the time that calls wait, with metrics that the server has."""

import re
from pathlib import Path

import pytest
import yaml

from support.chart import only, rendered
from support.serving import ServerProcess

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "kubernetes.md"


def test_without_autoscaling_the_number_of_pods_is_fixed() -> None:
    """`replicas` holds only where nothing scales: otherwise each rollout would undo the scaling."""
    assert only(rendered("pvc"), "Deployment")["spec"]["replicas"] == 2
    for values in ("secure", "gpu"):
        assert "replicas" not in only(rendered(values), "Deployment")["spec"]


def test_an_adapter_brings_the_queue_time() -> None:
    """The HorizontalPodAutoscaler has CPU, and the external metric of this release in seconds."""
    objects = rendered("secure")
    spec = only(objects, "HorizontalPodAutoscaler")["spec"]
    assert spec["scaleTargetRef"]["name"] == only(objects, "Deployment")["metadata"]["name"]
    cpu, queue = spec["metrics"]
    assert cpu["containerResource"]["target"]["averageUtilization"] == 70
    assert queue["external"]["target"] == {"type": "Value", "value": "20m"}
    selector = queue["external"]["metric"]["selector"]["matchLabels"]
    assert ("Service", selector["service"]) in objects
    assert ("ScaledObject", "r-convvae") not in objects


def test_keda_asks_prometheus_itself() -> None:
    """With KEDA there is a ScaledObject alone, which makes an autoscaler of its own."""
    objects = rendered("gpu")
    assert not [kind for kind, _ in objects if kind == "HorizontalPodAutoscaler"]
    cpu, queue = only(objects, "ScaledObject")["spec"]["triggers"]
    assert cpu["metadata"]["value"] == "70"
    assert (queue["metricType"], queue["metadata"]["threshold"]) == ("Value", "50")
    assert '{namespace="models",service="vae-headless"}' in queue["metadata"]["query"]


def test_cpu_may_be_left_out() -> None:
    """With `cpuPercent` 0, the queue alone scales."""
    for values in ("secure", "gpu"):
        objects = rendered(values, "--set", "autoscaling.cpuPercent=0")
        if values == "gpu":
            assert len(only(objects, "ScaledObject")["spec"]["triggers"]) == 1
        else:
            (queue,) = only(objects, "HorizontalPodAutoscaler")["spec"]["metrics"]
            assert queue["type"] == "External"


def rule() -> dict[str, object]:
    """Return the adapter's rule in docs/kubernetes.md."""
    text = next(
        one for one in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL) if "rules:" in one
    )
    (found,) = yaml.safe_load(text)["rules"]["external"]
    read: dict[str, object] = found
    return read


@pytest.mark.one_front
def test_queries_ask_for_metrics_that_the_server_has(tiny_server: ServerProcess) -> None:
    """The histogram in KEDA's query and in the documented rule is on the page of metrics."""
    query = only(rendered("gpu"), "ScaledObject")["spec"]["triggers"][1]["metadata"]["query"]
    documented = rule()
    names = set(re.findall(r"\bconvvae_\w+_bucket\b", f"{query} {documented['metricsQuery']}"))
    assert names == {"convvae_queue_seconds_bucket"}
    assert "# TYPE convvae_queue_seconds histogram" in tiny_server.metrics_page()
    metric = only(rendered("secure"), "HorizontalPodAutoscaler")["spec"]["metrics"][1]["external"]["metric"]
    assert documented["name"] == {"as": metric["name"]}
