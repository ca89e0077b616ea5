"""Wrong values are refused by helm before anything is installed, in words that name the value."""

import pytest

from support.chart import CHART, run, template


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("replicas=two", "replicas"),
        ("replica=3", "'replica' not allowed"),
        ("settings.grace_s=soon", "grace_s"),
        ("settings.grace_s=-1", "grace_s"),
        ("settings.grace=30", "'grace' not allowed"),
        ("settings.models=/elsewhere", "'models' not allowed"),
        ("settings.front=fast", "front"),
        ("settings.max_batch_rows=0", "max_batch_rows"),
        ("settings.versions=all", "versions"),
        ("models.source=git", "source"),
        ("models.pvc.claimName=Not_A_Name", "claimName"),
        ("image.digest=sha256:12", "digest"),
        ("service.type=Loadbalancer", "type"),
        ("service.port=70000", "port"),
        ("gpu.count=-1", "count"),
        ("resources.limits.memory=2Gb", "memory"),
        ("resources.limit.memory=2Gi", "'limit' not allowed"),
        ("topologySpread.zone=Maybe", "zone"),
        ("podDisruptionBudget.maxUnavailable=half", "maxUnavailable"),
        ("autoscaling.queue.source=prometheus", "source"),
        ("autoscaling.queue.prometheusAddress=prometheus:9090", "prometheusAddress"),
        ("tls.enabled=true", "'enabled' not allowed"),
        ("networkPolicy.clients=all", "clients"),
    ],
)
def test_the_schema_refuses(word: str, named: str) -> None:
    """A value of the wrong type, out of its range, or with an unknown name is refused by its name."""
    done = template("pvc", "--set", word)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "values don't meet the specifications of the schema" in done.stderr
    assert named in done.stderr


@pytest.mark.parametrize(
    ("values", "words", "message"),
    [
        ("pvc", ("image.repository=",), "image.repository is empty: push the image"),
        ("pvc", ("models.pvc.claimName=",), "models.pvc.claimName is empty: name the PersistentVolumeClaim"),
        ("secure", ("models.bucket.url=",), "models.bucket.url is empty"),
        ("gpu", ("models.image.reference=",), "models.image.reference is empty"),
        ("secure", ("tls.secretName=",), "tokens would travel in plain text"),
        ("secure", ("settings.front=native",), "settings.front native has no TLS"),
        ("pvc", ("settings.front=native",), "set settings.max_connection_age_s to 0"),
        ("secure", ("autoscaling.maxReplicas=1",), "autoscaling.minReplicas (2) is above"),
        ("pvc", ("autoscaling.enabled=true", "autoscaling.cpuPercent=0"), "autoscaling has no metric"),
        ("pvc", ("autoscaling.enabled=true", "resources=null"), "needs resources.requests.cpu"),
        ("pvc", ("rollout.maxSurge=0",), "no pod could be replaced"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(
    values: str, words: tuple[str, ...], message: str
) -> None:
    """Values that are right alone and wrong together are refused in a sentence."""
    done = template(values, *(part for word in words for part in ("--set", word)))
    assert done.returncode != 0
    assert message in done.stderr


def test_old_clusters_are_refused() -> None:
    """A Kubernetes that is older than the chart needs is refused by its version."""
    done = template("pvc", kubernetes="1.28.0")
    assert done.returncode != 0
    assert "chart requires kubeVersion: >=1.29.0-0" in done.stderr


def test_the_chart_without_values_says_what_is_missing() -> None:
    """The defaults alone install nothing: the image and the models have no default."""
    done = run("helm", "template", "r", CHART, "--kube-version", "1.37.0")
    assert done.returncode != 0
    assert "image.repository is empty" in done.stderr
