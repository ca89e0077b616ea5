"""Compares manifests with the classes of KServe's Python package: `PYTHON FILE MANIFEST...`.

It runs in the environment that `make tools` makes. stdout is a list of faults in JSON: fields that do
not exist, fields that are missing, and values of other types.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import kserve.models as kserve_models
import kubernetes.client.models as kubernetes_models
import yaml

PLAIN: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "bool": bool, "object": object}


def class_of(name: str) -> Any:
    """Return the class of a type; KServe's names win over those of Kubernetes."""
    return getattr(kserve_models, name, None) or getattr(kubernetes_models, name)


def faults(value: Any, type_name: str, path: str) -> list[str]:
    """Return what is wrong with a value of a type, with the path of each fault."""
    if inner := re.fullmatch(r"[Ll]ist\[(.+)\]", type_name):
        if not isinstance(value, list):
            return [f"{path}: not a list"]
        return [one for i, item in enumerate(value) for one in faults(item, inner[1], f"{path}[{i}]")]
    if inner := re.fullmatch(r"[Dd]ict[(\[](.+), (.+)[)\]]", type_name):
        return [one for key, item in value.items() for one in faults(item, inner[2], f"{path}.{key}")]
    if type_name in PLAIN:
        return [] if isinstance(value, PLAIN[type_name]) else [f"{path}: not {type_name}"]
    kind = class_of(type_name)
    fields = {there: name for name, there in kind.attribute_map.items()}
    if not isinstance(value, dict):
        return [f"{path}: not {type_name}"]
    found = [f"{path}.{key}: no such field" for key in value if key not in fields]
    for key in value.keys() & fields.keys():
        found += faults(value[key], kind.openapi_types[fields[key]], f"{path}.{key}")
    try:
        kind(**{fields[key]: item for key, item in value.items() if key in fields})
    except ValueError as error:
        found.append(f"{path}: {error}")
    return found


def main() -> None:
    """Print the faults of all manifests."""
    found = []
    for file in sys.argv[1:]:
        manifest = yaml.safe_load(Path(file).read_text())
        version = manifest["apiVersion"].rpartition("/")[2].capitalize()
        found += faults(manifest, f"{version}{manifest['kind']}", manifest["kind"])
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
