"""The schemas of the resources, read from the CRDs: one source for the API server and for YAML on one machine."""

import copy
import functools
import importlib.resources
from typing import Any

import yaml
from jsonschema import Draft202012Validator

GROUP = "mail.postroom.dev/v1alpha1"
_FILES = {"MailDomain": "mail.postroom.dev_maildomains.yaml", "SendingPool": "mail.postroom.dev_sendingpools.yaml"}
KINDS = tuple(_FILES)


@functools.cache
def schema(kind: str) -> dict[str, Any]:
    """The OpenAPI schema of a kind, closed: the API server prunes unknown fields, on one machine they are errors, because they would do nothing."""
    text = (importlib.resources.files(__package__) / "crds" / _FILES[kind]).read_text()
    found: dict[str, Any] = copy.deepcopy(yaml.safe_load(text)["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    del found["properties"]["status"]  # what is, not what is wanted
    _close(found)
    name = {"type": "string", "maxLength": 253, "pattern": "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"}
    found["properties"]["metadata"] = {"type": "object", "required": ["name"], "properties": {"name": name, "namespace": name}}
    return found


@functools.cache
def validator(kind: str) -> Draft202012Validator:
    """Checks documents of a kind."""
    return Draft202012Validator(schema(kind))


def _close(node: Any) -> None:
    if isinstance(node, dict):
        if "properties" in node:
            node["additionalProperties"] = False
        for value in node.values():
            _close(value)
    elif isinstance(node, list):
        for value in node:
            _close(value)


def with_defaults(value: Any, node: dict[str, Any]) -> Any:
    """A copy of a valid document with the schema's defaults, as the API server would fill them in."""
    if isinstance(value, dict) and "properties" in node:
        filled = dict(value)
        for name, child in node["properties"].items():
            if name not in filled and "default" in child:
                filled[name] = copy.deepcopy(child["default"])
            if name in filled:
                filled[name] = with_defaults(filled[name], child)
        return filled
    if isinstance(value, list) and "items" in node:
        return [with_defaults(item, node["items"]) for item in value]
    return value
