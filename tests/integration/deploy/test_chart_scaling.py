"""The chart scales by CPU and by the time that calls wait, with metrics that the server has."""

import re
from pathlib import Path

import pytest
import yaml

from support.chart import only, rendered, run
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


def test_the_documented_rule_is_the_query_in_seconds() -> None:
    """The adapter's rule computes what KEDA's query does, which the next test lets Prometheus compute."""
    query = only(rendered("gpu"), "ScaledObject")["spec"]["triggers"][1]["metadata"]["query"]
    rule_query = str(rule()["metricsQuery"]).replace(
        "<<.LabelMatchers>>", 'namespace="models",service="vae-headless"'
    )
    assert query.split() == f"1000 * ({rule_query})".split()


# Calls of a minute: half of them wait for up to 10 ms, all of them for up to 50 ms.
BUCKETS = {"0.01": 50, "0.05": 100, "+Inf": 100}


@pytest.mark.parametrize(
    ("service", "calls", "milliseconds"),
    [("vae-headless", 1, 46), ("vae-headless", 0, 0), ("another-headless", 1, 0)],
    ids=["calls", "no-calls", "calls-of-another-release"],
)
def test_the_query_is_the_time_that_calls_wait(
    service: str, calls: int, milliseconds: int, tmp_path: Path
) -> None:
    """Prometheus computes the percentile of this release in milliseconds, and 0 without calls."""
    query = only(rendered("gpu"), "ScaledObject")["spec"]["triggers"][1]["metadata"]["query"]
    labels = f'namespace="models",service="{service}",stage="encode"'
    series = [
        {
            "series": f'convvae_queue_seconds_bucket{{{labels},le="{bound}"}}',
            "values": f"0+{count * calls}x10",
        }
        for bound, count in BUCKETS.items()
    ]
    asked = {
        "expr": f"round({query})",
        "eval_time": "10m",
        "exp_samples": [{"labels": "{}", "value": milliseconds}],
    }
    unit = {"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [asked]}]}
    (tmp_path / "unit.yaml").write_text(yaml.safe_dump(unit))
    done = run("promtool", "test", "rules", tmp_path / "unit.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
