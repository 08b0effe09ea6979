"""One contract of the directory's sources: files, Kubernetes Secrets, and the latter against a real API server (marker e2e, by KUBECONFIG)."""

import asyncio
import base64
import contextlib
import json
import pathlib
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import pytest

from postroom_core import directory, kubernetes_source
from postroom_core.directory import Directory, FileSource, Source
from postroom_core.documents import AnyDocument, Domain, Pool
from postroom_core.errors import Transient
from postroom_core.kubernetes_source import Api, KubernetesSource
from postroom_core.snapshot import Snapshot

from contract.kubernetes_api import FakeApi, running

LABELS = {"mail.postroom.dev/directory": "ingress"}
SELECTOR = "mail.postroom.dev/directory=ingress"


class Publisher(Protocol):
    """The writing side of a source."""

    source: Source

    def publish(self, documents: Iterable[AnyDocument]) -> None: ...

    def break_one(self, document: AnyDocument) -> None:
        """What holds `document` holds nonsense from now on."""

    def away(self) -> None:
        """The place where documents are cannot be read from now on."""

    def back(self) -> None: ...


class Files:
    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.source: Source = FileSource(folder)

    def publish(self, documents: Iterable[AnyDocument]) -> None:
        found = list(documents)
        directory.publish(self.folder, found, directory.version_of(found))

    def break_one(self, document: AnyDocument) -> None:
        path = self.folder / f"{document.kind}-{document.name.replace('/', '.')}.json"
        path.unlink()
        path.write_text('{"kind": "domain"}')
        (self.folder / "VERSION").write_text("broken")

    def away(self) -> None:
        self.folder.rename(self.folder.with_suffix(".away"))

    def back(self) -> None:
        self.folder.with_suffix(".away").rename(self.folder)


def secret_name(document: AnyDocument) -> str:
    return f"{document.kind}-{document.name.replace('/', '.')}"


class Secrets:
    """Of a fake API. `away` answers 503 to everything that is asked."""

    def __init__(self, api: FakeApi, source: Source) -> None:
        self.api = api
        self.source = source

    def publish(self, documents: Iterable[AnyDocument]) -> None:
        wanted = {secret_name(document): document.model_dump_json().encode() for document in documents}
        for name in [name for name in self.api.secrets if name not in wanted]:
            self.api.delete(name)
        for name, content in wanted.items():
            self.api.put(name, content, LABELS)
        self.api.put("someone-elses", b"no document", {"mail.postroom.dev/directory": "signer"})

    def break_one(self, document: AnyDocument) -> None:
        self.api.put(secret_name(document), b'{"kind": "domain"}', LABELS)

    def away(self) -> None:
        self.api.faults = [503] * 1000
        self.api.cut()

    def back(self) -> None:
        self.api.faults.clear()


def kubectl(*arguments: str, text: str = "") -> str:
    return subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=True, timeout=30).stdout


class Cluster:
    """Of a real API server, through kubectl's proxy, which `away` stops."""

    def __init__(self, namespace: str, port: int) -> None:
        self.namespace = namespace
        self.port = port
        self.source: Source = KubernetesSource(Api(f"http://127.0.0.1:{port}"), namespace, SELECTOR)
        self.proxy: subprocess.Popen[bytes] | None = None
        self.back()

    def _apply(self, name: str, content: bytes) -> None:
        data = {"document": base64.b64encode(content).decode()}
        metadata = {"name": name, "namespace": self.namespace, "labels": LABELS}
        kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}))

    def publish(self, documents: Iterable[AnyDocument]) -> None:
        wanted = {secret_name(document): document.model_dump_json().encode() for document in documents}
        held = kubectl("-n", self.namespace, "get", "secret", "-l", SELECTOR, "-o", "name").split()
        for name in [found.removeprefix("secret/") for found in held]:
            if name not in wanted:
                kubectl("-n", self.namespace, "delete", "secret", name)
        for name, content in wanted.items():
            self._apply(name, content)

    def break_one(self, document: AnyDocument) -> None:
        self._apply(secret_name(document), b'{"kind": "domain"}')

    def away(self) -> None:
        assert self.proxy is not None
        self.proxy.terminate()
        self.proxy.wait(5)

    def back(self) -> None:
        self.proxy = subprocess.Popen(["kubectl", "proxy", f"--port={self.port}"], stdout=subprocess.DEVNULL)


@contextlib.asynccontextmanager
async def files(tmp_path: pathlib.Path) -> AsyncIterator[Publisher]:
    yield Files(tmp_path / "directory")


@contextlib.asynccontextmanager
async def fake(tmp_path: pathlib.Path) -> AsyncIterator[Publisher]:
    api = FakeApi()
    async with running(api) as url:
        yield Secrets(api, KubernetesSource(Api(url), "postroom", SELECTOR))


@contextlib.asynccontextmanager
async def real(tmp_path: pathlib.Path) -> AsyncIterator[Publisher]:
    namespace = f"directory-{secrets.token_hex(3)}"
    kubectl("create", "namespace", namespace)
    cluster = Cluster(namespace, 18001)
    try:
        yield cluster
    finally:
        cluster.away()
        kubectl("delete", "namespace", namespace, "--wait=false")


World = Callable[[pathlib.Path], AbstractAsyncContextManager[Publisher]]
WORLDS = [pytest.param(files, id="files"), pytest.param(fake, id="kubernetes"), pytest.param(real, id="cluster", marks=pytest.mark.e2e)]


def domain(name: str, **fields: Any) -> Domain:
    return Domain(name=name, tenant="default", pool="default/main", active=True, signed=True, **fields)


class Watcher:
    """A Directory that is followed, and the snapshots that its listener got."""

    def __init__(self, source: Source) -> None:
        self.directory = Directory(source)
        self.snapshots: list[Snapshot] = []
        self.directory.subscribe(self.snapshots.append)

    def names(self) -> set[str]:
        return {document.name for document in self.directory.snapshot.documents}

    async def until(self, condition: Callable[[], bool], seconds: float = 15) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def watched(world: World, tmp_path: pathlib.Path) -> AsyncIterator[tuple[Publisher, Watcher]]:
    async with world(tmp_path) as publisher:
        watcher = Watcher(publisher.source)
        following = asyncio.create_task(watcher.directory.follow())
        try:
            yield publisher, watcher
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


@pytest.mark.parametrize("world", WORLDS)
def test_there_is_no_snapshot_before_the_first(world: World, tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as publisher:
            with pytest.raises(Transient):
                publisher.source.load()
            assert not publisher.source.changed("")

    asyncio.run(scenario())


@pytest.mark.parametrize("world", WORLDS)
def test_documents_are_added_changed_and_removed_while_running(world: World, tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with watched(world, tmp_path) as (publisher, watcher):
            names = [f"d{number}.example" for number in range(8)]
            publisher.publish([domain(name) for name in names])
            await watcher.until(lambda: watcher.names() == set(names))
            publisher.publish([domain("d0.example", delivery_target="other:7443"), Pool(name="default/main")])
            await watcher.until(lambda: watcher.names() == {"d0.example", "default/main"})
            await watcher.until(lambda: watcher.directory.snapshot.of(Domain)["d0.example"].delivery_target == "other:7443")
            publisher.publish([])
            await watcher.until(lambda: watcher.names() == set())
            assert watcher.directory.snapshot.version
            assert watcher.snapshots[-1] is watcher.directory.snapshot

    asyncio.run(scenario())


@pytest.mark.parametrize("world", WORLDS)
def test_a_document_that_turns_invalid_keeps_the_last_snapshot_and_its_repair_ends_that(world: World, tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with watched(world, tmp_path) as (publisher, watcher):
            publisher.publish([domain("a.example"), domain("b.example")])
            await watcher.until(lambda: watcher.names() == {"a.example", "b.example"})
            publisher.break_one(domain("a.example"))
            await asyncio.sleep(directory.POLL_SECONDS * 2)
            assert watcher.names() == {"a.example", "b.example"}
            publisher.publish([domain("a.example", delivery_target="x:1")])
            await watcher.until(lambda: watcher.names() == {"a.example"})
            assert watcher.directory.snapshot.of(Domain)["a.example"].delivery_target == "x:1"

    asyncio.run(scenario())


@pytest.mark.parametrize("world", WORLDS)
def test_the_last_snapshot_stays_while_the_source_is_away_and_changes_come_when_it_is_back(world: World, tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with watched(world, tmp_path) as (publisher, watcher):
            publisher.publish([domain("a.example")])
            await watcher.until(lambda: watcher.names() == {"a.example"})
            publisher.away()
            await asyncio.sleep(directory.POLL_SECONDS * 3)
            assert watcher.names() == {"a.example"}
            publisher.back()
            publisher.publish([domain("a.example"), domain("b.example")])
            await watcher.until(lambda: watcher.names() == {"a.example", "b.example"})

    asyncio.run(scenario())


@pytest.mark.parametrize("world", WORLDS)
def test_equal_documents_make_no_new_snapshot(world: World, tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with watched(world, tmp_path) as (publisher, watcher):
            publisher.publish([domain("a.example")])
            await watcher.until(lambda: watcher.names() == {"a.example"})
            before = watcher.directory.snapshot
            publisher.publish([domain("a.example")])
            await asyncio.sleep(directory.POLL_SECONDS * 2)
            assert watcher.directory.snapshot is before

    asyncio.run(scenario())


# Faults that only an API has


@contextlib.asynccontextmanager
async def faulty(faults: list[str | int]) -> AsyncIterator[tuple[FakeApi, Watcher]]:
    """The faults come after a good start, one per request; then the API works again."""
    api = FakeApi()
    async with running(api) as url:
        api.put("a", domain("a.example").model_dump_json().encode(), LABELS)
        watcher = Watcher(KubernetesSource(Api(url), "postroom", SELECTOR))
        following = asyncio.create_task(watcher.directory.follow())
        try:
            await watcher.until(lambda: watcher.names() == {"a.example"} and "watch" in api.requests)
            api.faults = list(faults)
            api.cut()
            yield api, watcher
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


@pytest.mark.parametrize("faults", [[409], [429], [500, 503], [410], ["gone"], ["garbage"], ["drop", "drop"], [403, 401]], ids=str)
def test_a_change_arrives_after_faults_and_nothing_is_lost_during_them(faults: list[str | int]) -> None:
    async def scenario() -> None:
        async with faulty(faults) as (api, watcher):
            api.put("b", domain("b.example").model_dump_json().encode(), LABELS)
            api.delete("a")
            await watcher.until(lambda: not api.faults)
            await watcher.until(lambda: watcher.names() == {"b.example"})
            lists = api.requests.count("list")
            assert lists == (2 if any(fault in ("gone", 410) for fault in faults) else 1), "a watch is taken up where it ended; only 410 lists again"
            assert all({document.name for document in snapshot.documents} for snapshot in watcher.snapshots)

    asyncio.run(scenario())


def test_history_that_was_compacted_is_listed_again(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with faulty([503]) as (api, watcher):
            api.delete("a")
            api.put("b", domain("b.example").model_dump_json().encode(), LABELS)
            api.forget()
            await watcher.until(lambda: watcher.names() == {"b.example"})
            assert api.requests.count("list") == 2

    asyncio.run(scenario())


def test_a_connection_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-open connection and a server that hangs both look like this: accepted, and then silence."""
    monkeypatch.setattr(kubernetes_source, "SILENCE_SECONDS", 0.3)

    async def scenario() -> None:
        async with faulty(["hang"]) as (api, watcher):
            await watcher.until(lambda: not api.faults)
            api.put("b", domain("b.example").model_dump_json().encode(), LABELS)
            await watcher.until(lambda: watcher.names() == {"a.example", "b.example"})

    asyncio.run(scenario())


def test_too_many_requests_are_answered_by_the_pause_that_was_asked_for() -> None:
    async def scenario() -> None:
        async with faulty([429]) as (api, watcher):
            loop = asyncio.get_running_loop()
            await watcher.until(lambda: not api.faults)
            asked, count = loop.time(), len(api.requests)
            await watcher.until(lambda: len(api.requests) > count)
            assert loop.time() - asked > 0.9

    asyncio.run(scenario())


def test_a_document_that_was_never_valid_is_left_out_and_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with faulty([]) as (api, watcher):
            api.put("bad", b"PRIVATE", LABELS)
            api.put("b", domain("b.example").model_dump_json().encode(), LABELS)
            await watcher.until(lambda: watcher.names() == {"a.example", "b.example"})

    asyncio.run(scenario())
    assert "PRIVATE" not in caplog.text
