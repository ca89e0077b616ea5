"""The dashboard and the alert rules under deploy/, with a real server and a Prometheus that reads it."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme
import yaml
from prometheus_client.parser import text_string_to_metric_families

import convvae
from convvae import Client, RetryConfig, TLSConfig
from support.serving import ServerProcess, serving
from support.tiny_bundle import SHAPE, publish_tiny
from support.waiting import wait_until
from support.watched_models import WATCH

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
DASHBOARD = json.loads((DEPLOY / "dashboards" / "convvae.json").read_text())
PANELS = [
    pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]
ALERTS = [
    pytest.param(rule["expr"], id=rule["alert"])
    for group in yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())["groups"]
    for rule in group["rules"]
]
METRIC = re.compile(r"\b(?:convvae|grpc_server|process)_\w+")
# An alert is an expression, which always has series, and a bound.
BOUND = re.compile(r"\s*[<>]\s*[\d.]+(?: \* \d+)?\s*$")
SEEN = ('code="DEADLINE_EXCEEDED"', 'code="RESOURCE_EXHAUSTED"', 'result="loaded"', 'result="failed"')
SMALL_QUEUE = ("--max-rows-per-call", "64", "--max-queued-rows", "64", "--max-queue-delay-us", "20000")
NO_RETRY = RetryConfig(retries=0)
START_TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository of this module alone, which it changes while the server reads it."""
    root = tmp_path_factory.mktemp("models")
    publish_tiny(root)
    return root


def call_until_seen(server: ServerProcess, vae: Client, **options: Any) -> None:
    """Make calls of each kind until the server's metrics have all that a server can have."""

    def all_seen() -> bool:
        images = np.zeros((5, *SHAPE.as_tuple), np.uint8)
        vae.encode(images)
        vae.sample(3)
        vae.score(images)
        vae.reconstruct(images)
        # Callers in a hurry, and callers at the same time that ask for more than the queue holds.
        for timeout_s in (0.002, 5):
            with (
                Client(server.target, retry=NO_RETRY, timeout_s=timeout_s, **options) as unlucky,
                ThreadPoolExecutor(8) as threads,
            ):
                for call in [threads.submit(unlucky.sample, 64) for _ in range(8)]:
                    with contextlib.suppress(convvae.ConvvaeError):
                        call.result()
        page = server.metrics_page()
        return all(text in page for text in SEEN)

    wait_until(all_seen, within_s=START_TIMEOUT_S)


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with TLS that answered, ended and refused calls, loaded one version and failed on another."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    path = str(folder / "server.pem")
    tls = TLSConfig(root_certificates=authority.cert_pem.bytes())
    flags = ("--tls-certificate", path, "--tls-key", path, *WATCH, *SMALL_QUEUE)
    with serving(root, *flags) as server, Client(server.target, tls=tls) as vae:
        publish_tiny(root)
        broken = publish_tiny(root)
        for graph in broken.glob("*.onnx"):
            graph.write_bytes(b"no graph")
        call_until_seen(server, vae, tls=tls)
        yield server


@pytest.mark.parametrize("query", [*PANELS, *ALERTS])
def test_a_query_names_metrics_that_the_server_has(server: ServerProcess, query: str) -> None:
    """Each metric of a query is on the server's page."""
    names = {name.partition("{")[0] for name in server.metrics()}
    found = set(METRIC.findall(re.sub(r'"[^"]*"', "", query)))
    assert found or query.startswith("up{")
    assert found <= names


def test_a_wrong_name_would_be_found(server: ServerProcess) -> None:
    """The check above is not blind."""
    assert METRIC.findall("rate(convvae_row_total[5m])") == ["convvae_row_total"]
    assert "convvae_row_total" not in {name.partition("{")[0] for name in server.metrics()}


def test_the_dashboard_shows_what_it_should() -> None:
    """Each panel has its own id and place, texts and queries; the data source is the provisioned one."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    assert all(panel["title"] and panel["description"] and panel["targets"] for panel in panels)
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables.keys() == {"datasource", "instance"}
    (source,) = yaml.safe_load((DEPLOY / "dashboards" / "datasource.yaml").read_text())["datasources"]
    assert source["type"] == variables["datasource"]["query"] == "prometheus"
    scrape = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape


def test_the_page_of_metrics_is_the_documented_one(server: ServerProcess) -> None:
    """docs/operations.md has every metric of the server with its type and labels, and no other one."""
    text = (DEPLOY.parent / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \| [^|]+ \|([^|]*)\|", text, re.M)
    documented = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    found: dict[str, tuple[str, set[str]]] = {}
    for family in text_string_to_metric_families(server.metrics_page()):
        # When each counter and histogram began.
        if not family.name.endswith("_created"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            found[name] = (family.type, labels)
    assert found == documented


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def test_prometheus_accepts_the_configuration() -> None:
    """There is no fault in the configuration and the rules."""
    words = [program("promtool"), "check", "config", str(PROMETHEUS / "prometheus.yaml")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_fires_each_alert_for_its_fault_alone() -> None:
    """A healthy server fires nothing, and one with every fault fires every alert."""
    test = PROMETHEUS / "rules_test.yaml"
    words = [program("promtool"), "test", "rules", str(test)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f'alertname="{alert.id}"' in test.read_text() for alert in ALERTS)


@contextlib.contextmanager
def prometheus(target: str, folder: Path) -> Iterator[str]:
    """Run Prometheus on loopback with our rules and one target; give the address of its API."""
    path = program("prometheus")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = folder / "prometheus.yaml"
    job = {"job_name": "convvae", "static_configs": [{"targets": [target]}]}
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(PROMETHEUS / "rules.yaml")],
        "scrape_configs": [job],
    }
    config.write_text(yaml.safe_dump(settings))
    words = [path, f"--config.file={config}", f"--web.listen-address={address}"]
    words += [f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        yield address
    finally:
        process.terminate()
        process.wait(20)


def series(address: str, query: str) -> list[dict[str, Any]]:
    """Return what an instant query finds, or nothing while Prometheus starts."""
    words = urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(f"http://{address}/api/v1/query?{words}", timeout=10) as reply:
            found: list[dict[str, Any]] = json.load(reply)["data"]["result"]
            return found
    except urllib.error.HTTPError as error:
        if error.code == 503:
            return []
        raise AssertionError(f"{query}: {error.read().decode()}") from None
    except urllib.error.URLError:
        return []


@pytest.fixture(scope="module")
def scraped(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that has read the server's page several times."""
    with prometheus(server.metrics_target, tmp_path_factory.mktemp("prometheus")) as address:
        wait_until(
            lambda: any(
                float(found["value"][1]) >= 4
                for found in series(address, "count_over_time(convvae_calls_in_flight[1m])")
            ),
            within_s=START_TIMEOUT_S,
        )
        yield address


@pytest.mark.parametrize("query", [*PANELS, *ALERTS])
def test_prometheus_answers_a_query_with_series(scraped: str, query: str) -> None:
    """Each query of the dashboard, and each alert without its bound, finds series of the running server."""
    query = BOUND.sub("", query).replace("$__rate_interval", "1m").replace("$instance", ".+")
    assert series(scraped, query)


@pytest.mark.parametrize("query", ALERTS)
def test_an_alert_is_an_expression_and_a_bound(query: str) -> None:
    """The check above takes away the bound of every alert, and nothing else."""
    assert BOUND.search(query)
    assert not re.search(r"[<>]", BOUND.sub("", query))
