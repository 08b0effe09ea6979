"""Reads resources from YAML files. Every fault names file, line and field. I/O and syntax only; what the resources mean is the plan's business."""

import base64
import binascii
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import yaml
from jsonschema import ValidationError

from postroom_operator import schema

_Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Where:
    """Where a document stands, with the line of each of its fields."""

    file: str
    lines: dict[_Path, int] = field(repr=False)

    def problem(self, path: Iterable[str | int], text: str) -> str:
        """One line: file, line, field, what is wrong."""
        steps = tuple(path)
        known = next((self.lines[steps[:n]] for n in range(len(steps), -1, -1) if steps[:n] in self.lines), 1)
        name = ".".join(str(step) for step in steps) or "document"
        return f"{self.file}:{known}: {name}: {text}"


@dataclass(frozen=True, slots=True)
class Resource:
    """A MailDomain or SendingPool; `spec` has the defaults filled in."""

    kind: str
    name: str
    namespace: str
    spec: dict[str, Any]
    where: Where


@dataclass(frozen=True, slots=True)
class Secret:
    """A Secret's data, decoded. Never printed."""

    name: str
    namespace: str
    data: dict[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Resources:
    """Everything that was read; with problems, nothing may be put in force."""

    domains: tuple[Resource, ...]
    pools: tuple[Resource, ...]
    secrets: dict[tuple[str, str], Secret]
    problems: tuple[str, ...]


def files(path: pathlib.Path) -> list[pathlib.Path]:
    """The YAML files that a file or folder means."""
    if path.is_dir():
        return sorted(found for found in path.iterdir() if found.suffix in (".yaml", ".yml"))
    return [path]


def read(path: pathlib.Path) -> Resources:
    """Reads a file or a folder. Faults are in `problems`; raises nothing."""
    found: list[Resource] = []
    secrets: dict[tuple[str, str], Secret] = {}
    problems: list[str] = []
    try:
        texts = [(file.name, file.read_text()) for file in files(path)]
    except (OSError, UnicodeDecodeError) as error:
        return Resources((), (), {}, (f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}",))
    if not texts:
        problems.append(f"{path}: no .yaml file in this folder; postroom init writes a first one")
    for name, text in texts:
        for document, where in _documents(name, text, problems):
            _take(document, where, found, secrets, problems)
    domains = tuple(resource for resource in found if resource.kind == "MailDomain")
    pools = tuple(resource for resource in found if resource.kind == "SendingPool")
    return Resources(domains, pools, secrets, tuple(problems))


def _documents(name: str, text: str, problems: list[str]) -> list[tuple[Any, Where]]:
    found = []
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None:
                continue
            lines: dict[_Path, int] = {}
            _walk(node, (), lines)
            found.append((loader.construct_document(node), Where(name, lines)))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        problems.append(f"{name}:{line}: not YAML: {error.problem}")
    except yaml.YAMLError as error:
        problems.append(f"{name}:1: not YAML: {type(error).__name__}")
    finally:
        loader.dispose()
    return [(document, where) for document, where in found if document is not None]


def _walk(node: yaml.Node, path: _Path, lines: dict[_Path, int]) -> None:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _walk(value, (*path, key.value), lines)
            lines[(*path, key.value)] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*path, index), lines)


def _take(document: Any, where: Where, found: list[Resource], secrets: dict[tuple[str, str], Secret], problems: list[str]) -> None:
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind == "Secret":
        _take_secret(document, where, secrets, problems)
    elif kind not in schema.KINDS:
        problems.append(where.problem(("kind",), f"must be one of {', '.join(schema.KINDS)}, Secret"))
    elif document.get("apiVersion") != schema.GROUP:
        problems.append(where.problem(("apiVersion",), f"must be {schema.GROUP}"))
    else:
        faults = sorted(schema.validator(kind).iter_errors(document), key=lambda error: list(map(str, error.absolute_path)))
        problems += [line for error in faults for line in _lines(error, where)]
        if not faults:
            filled = schema.with_defaults(document, schema.schema(kind))
            metadata = filled["metadata"]
            found.append(Resource(kind, metadata["name"], metadata.get("namespace", "default"), filled["spec"], where))


def _lines(error: ValidationError, where: Where) -> list[str]:
    """One line per fault, at the field that is wrong rather than at the object around it."""
    if error.validator != "additionalProperties":
        return [where.problem(error.absolute_path, _words(error.message))]
    node: Any = error.schema
    instance: Any = error.instance
    known = node["properties"]
    unknown = [name for name in instance if name not in known]
    return [where.problem((*error.absolute_path, name), f"is not a field; there are: {', '.join(sorted(known))}") for name in unknown]


def _words(message: str) -> str:
    """jsonschema's sentence, bounded; it may show the value, which in these kinds is never a secret."""
    return message if len(message) <= 200 else message[:200] + "…"


def _take_secret(document: dict[str, Any], where: Where, secrets: dict[tuple[str, str], Secret], problems: list[str]) -> None:
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        problems.append(where.problem(("metadata",), "a Secret needs a name"))
        return
    data: dict[str, str] = {}
    try:
        for key, value in (document.get("data") or {}).items():
            data[key] = base64.b64decode(value, validate=True).decode()
        for key, value in (document.get("stringData") or {}).items():
            data[key] = str(value)
    except (binascii.Error, ValueError, AttributeError, TypeError):
        problems.append(where.problem(("data",), "values of data must be base64 of text, values of stringData text"))
        return
    namespace = metadata.get("namespace", "default")
    secrets[(namespace, metadata["name"])] = Secret(metadata["name"], namespace, data)
