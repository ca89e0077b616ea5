"""The chart's values agree with their schema, and its schema with the settings of the server."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from convvae import __version__
from convvae_service.settings.serve import ServeSettings

CHART = Path(__file__).parents[2] / "deploy" / "chart"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
# Settings that the chart sets by other values, or whose files it has no value for.
OWN = {
    "models",
    "address",
    "socket_mode",
    "metrics_address",
    "device",
    "tls_certificate",
    "tls_key",
    "tls_client_ca",
    "token_file",
}


def test_settings_have_the_rules_of_the_server() -> None:
    """Each setting has the type, the limits and the description of `convvae-serve run --help`."""
    server = ServeSettings.model_json_schema()["properties"]
    assert server.keys() >= OWN
    expected = {
        name: {key: value for key, value in rules.items() if key not in ("title", "default")}
        for name, rules in server.items()
        if name not in OWN
    }
    assert SCHEMA["properties"]["settings"]["properties"] == expected


def objects(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each object of the schema that has named values, with its path."""
    if "properties" in schema and not path.endswith("[]"):
        yield path, schema
        for name, inner in schema["properties"].items():
            yield from objects(inner, f"{path}.{name}")


def test_unknown_values_are_refused_everywhere() -> None:
    """Every object with named values is closed, so that a value with a wrong name is never ignored."""
    found = dict(objects(SCHEMA))
    assert {"", ".models.bucket", ".settings", ".autoscaling.queue"} <= found.keys()
    assert [path for path, schema in found.items() if schema.get("additionalProperties") is not False] == []


def test_every_value_has_a_default_and_a_rule() -> None:
    """values.yaml has each value of the schema, and no other; `settings` may be any of the server's."""
    for path, schema in objects(SCHEMA):
        values = VALUES
        for part in path.split(".")[1:]:
            values = values.get(part, {})
        if path == ".settings":
            assert values.keys() <= schema["properties"].keys()
        elif not path.endswith("resources"):
            assert values.keys() == schema["properties"].keys() - {"global"}, path


def test_values_are_described() -> None:
    """In values.yaml, a comment stands above each value, or above the group of values that it begins."""
    undescribed, described = [], False
    for line in (CHART / "values.yaml").read_text().splitlines():
        name = line.strip().partition(":")[0]
        if line.strip().startswith("#"):
            described = True
        elif not line.strip():
            described = False
        elif not described and not line.rstrip().endswith(":"):
            undescribed.append(name)
    assert undescribed == []


def test_the_chart_has_the_version_of_the_project() -> None:
    """The chart and its application have the version of the package."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)
