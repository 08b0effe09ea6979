"""Kubernetes' own JSON schemas for kubeconform, from the OpenAPI description that lies in the Go module k8s.io/kubernetes: no other download.

    python scripts/kube_schemas.py FOLDER VERSION…      # versions as 1.34.4; needs the command go

For each version a folder FOLDER/vVERSION, with a file KIND-GROUP-VERSION.json for every kind and one for what they share. They are strict: a
field that Kubernetes does not know is an error, as a misspelt one would otherwise be ignored by the API server.
"""

import json
import pathlib
import subprocess
import sys
from typing import Any

SHARED = "_definitions.json"
MODULE = "k8s.io/kubernetes"
# What Go decodes from more than the description says.
EITHER = {"type": ["string", "integer"]}
LENIENT = {"io.k8s.apimachinery.pkg.util.intstr.IntOrString": EITHER, "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]}}
Schema = dict[str, Any]


def strict(node: Any) -> Any:
    """A schema in which objects have no fields but those described, and references lead to the shared file."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {name: strict(value) for name, value in node.items() if name in ("type", "required", "items", "enum", "additionalProperties")}
    if "$ref" in node:
        found["$ref"] = node["$ref"].replace("#/definitions/", f"{SHARED}#/definitions/")
    if "properties" in node:
        found["properties"] = {name: strict(value) for name, value in node["properties"].items()}
        found.setdefault("additionalProperties", False)
    return found


def kinds(definitions: Schema) -> dict[str, str]:
    """File name → definition, for everything that can stand in a manifest."""
    found = {}
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            group = f"-{kind['group'].partition('.')[0]}" if kind["group"] else ""
            found[f"{kind['kind'].lower()}{group}-{kind['version']}.json"] = name
    return found


def write(folder: pathlib.Path, description: Schema) -> int:
    """The schemas of one version; how many kinds."""
    folder.mkdir(parents=True, exist_ok=True)
    definitions = description["definitions"]
    shared = {name: LENIENT.get(name) or strict(definition) for name, definition in definitions.items()}
    (folder / SHARED).write_text(json.dumps({"definitions": shared}))
    files = kinds(definitions)
    for file, name in files.items():
        (folder / file).write_text(json.dumps({"$ref": f"{SHARED}#/definitions/{name}"}))
    return len(files)


def described(version: str) -> Schema:
    """Kubernetes' OpenAPI description, from the module as Go keeps it."""
    done = subprocess.run(["go", "mod", "download", "-json", f"{MODULE}@v{version}"], check=True, capture_output=True, text=True, cwd="/")
    found: Schema = json.loads((pathlib.Path(json.loads(done.stdout)["Dir"]) / "api" / "openapi-spec" / "swagger.json").read_text())
    return found


def main(folder: pathlib.Path, versions: list[str]) -> None:
    for version in versions:
        print(f"{version}: {write(folder / f'v{version}', described(version))} kinds")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]), sys.argv[2:])
