"""The directory: the compiled documents that a service consumes, as one snapshot that changes while the service runs.

Source `files`: a folder of JSON documents and a file VERSION, written by `postroom up` through `publish`. VERSION changes last, so a reader
looks at one small file twice a second and reads the rest only when something changed. A folder that cannot be read keeps the last snapshot.
Source `kubernetes`: labelled Secrets of one namespace, see kubernetes_source. Both are held to one contract test.
"""

import asyncio
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog
from pydantic import ValidationError

from postroom_core.documents import ADAPTER, AnyDocument
from postroom_core.errors import Permanent, Transient
from postroom_core.lifecycle import supervised
from postroom_core.snapshot import Snapshot

log = structlog.get_logger(__name__)

VERSION = "VERSION"
# Half of what is promised (a change is in force within 2 s) is left for reading and compiling.
POLL_SECONDS = 0.5


class Source(Protocol):
    """Where snapshots come from."""

    def load(self) -> Snapshot:
        """The newest snapshot. Raises Transient when there is none yet or it cannot be read, Permanent when a document is invalid."""

    def changed(self, version: str) -> bool:
        """Whether there may be a snapshot other than `version`; cheap."""

    async def run(self) -> None:
        """Keeps `load` and `changed` informed, for ever; returns at once when that needs no work."""


KUBERNETES = "kubernetes:"


def source(text: str) -> Source:
    """Of POSTROOM_DIRECTORY: a folder, or kubernetes:NAMESPACE?SELECTOR. Raises Permanent for kubernetes: outside of a pod."""
    if not text.startswith(KUBERNETES):
        return FileSource(pathlib.Path(text))
    from postroom_core.kubernetes_source import Api, KubernetesSource

    namespace, _, selector = text.removeprefix(KUBERNETES).partition("?")
    return KubernetesSource(Api.of_pod(), namespace, selector)


class FileSource:
    """Documents as files of one folder; see `publish`."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    def changed(self, version: str) -> bool:
        try:
            return (self._folder / VERSION).read_text() != version
        except OSError:
            return False

    async def run(self) -> None:
        """The folder is looked at by `changed`."""

    def load(self) -> Snapshot:
        try:
            version = (self._folder / VERSION).read_text()
            documents = [_read(path) for path in sorted(self._folder.glob("*.json"))]
        except OSError as error:
            raise Transient(f"directory {self._folder}: {error}") from error
        if (self._folder / VERSION).read_text() != version:
            raise Transient(f"directory {self._folder} changed while it was read")
        return Snapshot(version, documents)


def _read(path: pathlib.Path) -> AnyDocument:
    try:
        return ADAPTER.validate_json(path.read_bytes())
    except ValidationError as error:
        # The error's own text would show the input, which may be a key: name the fields only.
        fields = ", ".join(".".join(str(part) for part in item["loc"]) + ": " + item["msg"] for item in error.errors(include_input=False))
        raise Permanent(f"directory document {path.name} is invalid: {fields}") from None


def publish(folder: pathlib.Path, documents: Iterable[AnyDocument], version: str) -> None:
    """Makes `folder` hold exactly `documents`, readable by its owner only, and then sets VERSION. Unchanged files are not touched."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    wanted = {f"{d.kind}-{d.name.replace('/', '.')}.json": d.model_dump_json().encode() for d in documents}
    for path in folder.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, content in wanted.items():
        path = folder / name
        if not path.exists() or path.read_bytes() != content:
            _replace(path, content)
    _replace(folder / VERSION, version.encode())


def _replace(path: pathlib.Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "wb") as file:
        file.write(content)
    temporary.rename(path)


class Directory:
    """The current snapshot of a source, kept fresh by `follow`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._listeners: list[Callable[[Snapshot], None]] = []
        self.snapshot = Snapshot("", ())

    def subscribe(self, listener: Callable[[Snapshot], None]) -> None:
        """Calls `listener` now if there is a snapshot, and after each change. It must not block."""
        self._listeners.append(listener)
        if self.snapshot.version:
            listener(self.snapshot)

    def refresh(self) -> bool:
        """Loads a changed snapshot; whether there was one. Raises what the source raises; the old snapshot stays."""
        if not self._source.changed(self.snapshot.version):
            return False
        self.snapshot = self._source.load()
        log.info("directory changed", version=self.snapshot.version, documents=len(self.snapshot.documents))
        for listener in self._listeners:
            listener(self.snapshot)
        return True

    async def follow(self) -> None:
        """Runs the source and refreshes for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(supervised("directory source", self._source.run))
            group.create_task(self._refresh_for_ever())

    async def _refresh_for_ever(self) -> None:
        """A snapshot that cannot be read is logged once per cause and the last one stays in force."""
        told = ""
        while True:
            try:
                self.refresh()
                told = ""
            except (Transient, Permanent) as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("directory not refreshed, the last snapshot stays", reason=told)
            await asyncio.sleep(POLL_SECONDS)


def version_of(documents: Iterable[AnyDocument]) -> str:
    """A version that is equal for equal documents, whatever their order."""
    digests = sorted(hashlib.sha256(json.dumps(d.model_dump(mode="json"), sort_keys=True).encode()).hexdigest() for d in documents)
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
