"""The page's door over real HTTP: who gets in, what a stranger's site can make a browser do, and what the headers forbid."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from postroom_core.errors import Permanent, Unavailable
from postroom_insight.finding import Finding, Grade
from postroom_web.app import COOKIE, Page, install
from postroom_web.login import SESSION_MS, Gate, Role
from postroom_web.source import DomainRecord, Source

Client = TestClient[web.Request, web.Application]
OPEN = (
    "/",
    "/queue",
    "/domains",
    "/domains/d.example",
    "/destinations",
    "/destinations/x.example",
    "/messages/ID",
    "/queue/confirm?action=rm&id=ID",
    "/suppressions",
)


@dataclass(frozen=True)
class Entry:
    """An address on the suppression list."""

    address: str
    scope: str
    owner: str
    reason: str = "complaint"
    evidence: str = "<i>abuse</i>"
    created_at: int = 1
    expires_at: int = 0


class Queue:
    """Answers as a delivery without mail; keeps what it was told to do."""

    def __init__(self) -> None:
        self.acted: list[tuple[str, Sequence[str]]] = []
        self.away = False
        self.off = False
        self.suppressed = [Entry("kim@x.example", "domain", "d.example"), Entry("kim@x.example", "global", "")]

    async def list(self, **_: Any) -> list[Any]:
        return []

    async def show(self, message_id: str) -> Any:
        raise Permanent(f"no message {message_id}")

    async def events(self, message_id: str = "") -> AsyncIterator[Any]:
        nothing: tuple[Any, ...] = ()
        for event in nothing:
            yield event

    async def suppressions(self, *, scope: str = "", owner: str = "", address: str = "") -> AsyncIterator[Entry]:
        for entry in self.suppressed:
            if address in ("", entry.address):
                yield entry

    async def change_suppressions(self, entries: Sequence[Any], *, remove: bool = False) -> int:
        self.acted.append(("remove" if remove else "add", [entry.address for entry in entries]))
        return len(entries)

    async def act(self, action: str, ids: Sequence[str]) -> int:
        self.acted.append((action, ids))
        return len(ids)

    async def suspend(self, pool: str, destination: str, *, suspended: bool) -> int:
        self.acted.append(("suspend" if suspended else "resume", [pool, destination]))
        return 1

    async def curbs(self) -> Sequence[Mapping[str, Any]]:
        return []

    async def webhooks(self, domain: str = "") -> Sequence[Mapping[str, Any]]:
        return []

    async def stats(self) -> dict[str, Any]:
        if self.away:
            raise Unavailable("delivery is away <b>")
        return {"recipients": {}, "due": 0, "oldest_due_seconds": 0, "in_doubt": 0, "destinations": []}

    async def analytics(self, since: int, until: int, by: Sequence[str], where: Mapping[str, str]) -> Sequence[Mapping[str, Any]]:
        if self.off:
            raise Permanent("nothing is counted")
        return []


class Clock:
    """A hand-set time."""

    now = 10_000_000


def run(scenario: Callable[[Client, Queue, Clock], Awaitable[None]]) -> None:
    queue, clock = Queue(), Clock()

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Queue]:
        yield queue

    async def check(domain: str) -> list[Finding]:
        return [Finding("spf", domain, Grade.FAIL, "<script>seen</script>", "wanted")]

    async def main() -> None:
        records = {"d.example": [DomainRecord("s._domainkey.d.example", "TXT", "v=DKIM1", True, "DKIM")]}
        page = Page(Source(opened, lambda: records, check, lambda: clock.now), Gate({Role.VIEWER: "look", Role.OPERATOR: "act"}))
        app = web.Application()

        async def metrics(_: web.Request) -> web.Response:
            return web.Response(text="metrics")

        app.add_routes([web.get("/metrics", metrics)])
        install(app, page)
        async with TestClient(TestServer(app)) as client:
            await scenario(client, queue, clock)

    asyncio.run(main())


async def log_in(client: Client, token: str) -> str:
    """Logs in; the proof that stands in the forms."""
    async with client.post("/login", data={"token": token}, allow_redirects=False) as response:
        assert response.status == 303
        cookie = response.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and token not in cookie
    async with client.get("/") as response:
        text = await response.text()
        assert response.status == 200, text
    return text.partition('name="proof" value="')[2].partition('"')[0]


async def status(client: Client, path: str, **values: Any) -> int:
    async with client.post(path, allow_redirects=False, **values) as response:
        return response.status


@pytest.mark.parametrize("path", OPEN)
def test_nothing_is_shown_without_a_login(path: str) -> None:
    async def scenario(client: Client, queue: Queue, clock: Clock) -> None:
        async with client.get(path, allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (303, "/login")
        async with client.get(path, allow_redirects=False, headers={"X-Fragment": "1"}) as response:
            assert response.status == 401
        async with client.get("/metrics") as response:
            assert (response.status, "Content-Security-Policy" in response.headers) == (200, False)

    run(scenario)


def test_a_wrong_token_is_refused_and_a_session_ends() -> None:
    async def scenario(client: Client, queue: Queue, clock: Clock) -> None:
        assert await status(client, "/login", data={"token": "guess"}) == 401
        await log_in(client, "look")
        clock.now += SESSION_MS
        async with client.get("/", allow_redirects=False) as response:
            assert response.status == 303

    run(scenario)


def test_every_page_forbids_what_is_foreign() -> None:
    async def scenario(client: Client, queue: Queue, clock: Clock) -> None:
        await log_in(client, "act")
        for path in (*OPEN, "/login", "/assets/style.css", "/nowhere"):
            async with client.get(path) as response:
                text = await response.text()
                if path == "/nowhere":
                    continue
                policy = response.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy and "unsafe" not in policy
                assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text, path
            assert " style=" not in text and " onclick=" not in text

    run(scenario)


def test_an_action_needs_the_operator_the_proof_and_our_own_origin() -> None:
    async def scenario(client: Client, queue: Queue, clock: Clock) -> None:
        wanted = {"action": "rm", "id": ["A", "B"]}
        assert await status(client, "/queue/act", data=wanted) == 303  # to the login
        proof = await log_in(client, "look")
        assert await status(client, "/queue/act", data={**wanted, "proof": proof}) == 403
        proof = await log_in(client, "act")
        assert await status(client, "/queue/act", data=wanted) == 403
        assert await status(client, "/queue/act", data={**wanted, "proof": "x"}) == 403
        assert await status(client, "/queue/act", data={**wanted, "proof": proof}, headers={"Origin": "https://evil.example"}) == 403
        assert await status(client, "/queue/act", data={**wanted, "proof": proof}, headers={"Origin": "null"}) == 403
        assert queue.acted == []
        assert await status(client, "/queue/act", data={**wanted, "proof": proof}) == 303
        assert await status(client, "/destinations/suspend", data={"pool": "p", "destination": "x", "suspended": "yes", "proof": proof}) == 303
        assert queue.acted == [("rm", ["A", "B"]), ("suspend", ["p", "x"])]

    run(scenario)


def test_looking_and_asking_for_confirmation_change_nothing() -> None:
    async def scenario(client: Client, queue: Queue, clock: Clock) -> None:
        await log_in(client, "act")
        for path in OPEN:
            async with client.get(path) as response:
                await response.read()
        async with client.get("/queue/act?action=rm&id=A") as response:
            assert response.status == 405
        assert queue.acted == []

    run(scenario)


def test_what_others_say_is_text_and_never_markup() -> None:
    async def scenario(client: Client, queue: Queue, clock: Clock) -> None:
        await log_in(client, "look")
        async with client.get("/domains/d.example?check=1") as response:
            text = await response.text()
            assert "&lt;script&gt;seen" in text and "<script>seen" not in text
        queue.away = True
        async with client.get("/") as response:
            assert response.status == 503
            assert "delivery is away &lt;b&gt;" in await response.text()
        async with client.get("/messages/%3Cb%3E") as response:
            assert response.status == 404
            assert "no message &lt;b&gt;" in await response.text()

    run(scenario)


def test_an_address_leaves_the_suppression_list_after_confirming_and_only_the_entry_that_is_meant() -> None:
    async def scenario(client: Client, queue: Queue, clock: Clock) -> None:
        proof = await log_in(client, "act")
        async with client.get("/suppressions") as response:
            text = await response.text()
            assert "kim@x.example" in text and "&lt;i&gt;abuse" in text
        async with client.get("/suppressions/confirm?scope=domain&owner=d.example&address=kim@x.example") as response:
            assert "Send to kim@x.example again?" in await response.text()
        async with client.get("/suppressions/confirm?scope=tenant&owner=t&address=kim@x.example") as response:
            assert response.status == 404
        assert queue.acted == []
        entry = {"scope": "domain", "owner": "d.example", "address": "kim@x.example"}
        assert await status(client, "/suppressions/remove", data=entry) == 403
        assert await status(client, "/suppressions/remove", data={**entry, "proof": proof}) == 303
        assert queue.acted == [("remove", ["kim@x.example"])]

    run(scenario)


def test_without_analytics_the_pages_show_the_queue_and_say_so() -> None:
    async def scenario(client: Client, queue: Queue, clock: Clock) -> None:
        queue.off = True
        await log_in(client, "look")
        async with client.get("/") as response:
            assert "nothing is counted" in await response.text()
        for path in ("/domains", "/domains/d.example", "/destinations", "/destinations/x.example"):
            async with client.get(path) as response:
                assert response.status == 200

    run(scenario)


def test_logging_out_needs_no_operator_and_ends_the_cookie() -> None:
    async def scenario(client: Client, queue: Queue, clock: Clock) -> None:
        proof = await log_in(client, "look")
        async with client.post("/logout", data={"proof": proof}, allow_redirects=False) as response:
            assert response.status == 303
            assert f'{COOKIE}=""' in response.headers["Set-Cookie"]

    run(scenario)
