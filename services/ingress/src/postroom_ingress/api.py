"""Submission by HTTP: routes, what they take and answer, and replies of the mail system as problems (RFC 9457). Decides nothing about mail.

A request is authenticated before its body is read. Bodies are bounded: raw messages stream through, JSON is held, so only a few large ones at once.
"""

import asyncio
import base64
import binascii
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

import structlog
from fastapi import FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from postroom_core.address import BadAddress, Mailbox, parse_mailbox
from postroom_core.errors import Unavailable
from postroom_core.ids import is_message_id
from postroom_core.reply import Reply
from postroom_ingress.authenticator import Authenticator
from postroom_ingress.clients import Deliveries, Status
from postroom_ingress.composing import Batch, Message, compose
from postroom_ingress.policy import Identity
from postroom_ingress.reception import AWAY
from postroom_ingress.sasl import CheckPassword, CheckToken
from postroom_ingress.submission import Answer, Letter, Submission

log = structlog.get_logger(__name__)
# JSON is held in memory, with attachments in base64: 48 MiB of it carry 35 MiB.
MOST_JSON = 48 * 1024 * 1024
SMALL_JSON = 256 * 1024
# Of the large ones at once: half a gigabyte with their copies at the worst. A tenant has one of them, so that no single one keeps the others out.
LARGE_AT_ONCE = 2
LARGE_WAIT_SECONDS = 10.0  # for a place among them; a client that hears 503 can do something else meanwhile
LATER = Reply(451, "4.3.2", "Too many large messages at the same time, try again soon")
BODY_SECONDS = 300.0
# A batch is worked through by this many at once; the spool groups their commits.
BATCH_AT_ONCE = 16
KEY = Annotated[str, Header(alias="Idempotency-Key", max_length=200, pattern=r"^[!-~]*$", description="The same key is the same message")]
SECURITY: dict[str, Any] = {"security": [{"basic": []}, {"bearer": []}]}
_WAIT = re.compile(r"try again in (\d+) s$")
_STATUS = {421: 429, 450: 503, 451: 503, 452: 429, 454: 503, 535: 401, 552: 413, 553: 422, 554: 422}


class Problem(BaseModel):
    """Why not (RFC 9457). `code` is what the same message would have been told by SMTP."""

    title: str
    status: int
    detail: str
    code: str = Field(description="SMTP reply code and enhanced code, for example 550 5.7.1")


class Accepted(BaseModel):
    """It is durably accepted, under this id."""

    id: str


class BatchResult(BaseModel):
    """What became of one recipient: `id` or `problem`."""

    recipient: str
    id: str | None = None
    problem: Problem | None = None


class BatchAnswer(BaseModel):
    """In the order of the recipients."""

    results: list[BatchResult]


class RecipientAnswer(BaseModel):
    """Where a recipient's copy is now."""

    address: str
    state: str = Field(description="scheduled, leased, held, delivered, bounced, expired or deleted")
    attempts: int
    nextAttempt: datetime | None = None
    lastReply: str = ""


class MessageAnswer(BaseModel):
    """A message and its recipients."""

    id: str
    reversePath: str
    receivedAt: datetime
    expiresAt: datetime
    recipients: list[RecipientAnswer]


class Refused(Exception):
    """Carries the reply that a request ends with."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


def problem(reply: Reply) -> Problem:
    """The reply as a problem; a refusal that SMTP has no better code for is 403 when it is about rights."""
    status = _STATUS.get(reply.code, 403 if reply.enhanced == "5.7.1" else 422)
    title = {401: "Not authenticated", 403: "Not allowed", 413: "Too large", 422: "Not acceptable", 429: "Too much", 503: "Not now"}[status]
    return Problem(title=title, status=status, detail=reply.text, code=f"{reply.code} {reply.enhanced}".strip())


def response(found: Problem) -> JSONResponse:
    """With what else its status demands: when to come again, how to authenticate."""
    headers = {}
    if found.status in (429, 503):
        wait = _WAIT.search(found.detail)
        headers["Retry-After"] = wait[1] if wait else "30"
    if found.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="postroom", charset="UTF-8", Bearer realm="postroom"'
    return JSONResponse(found.model_dump(), found.status, headers, media_type="application/problem+json")


class Api:
    """One for the process; `application` once."""

    def __init__(self, submission: Submission, authenticator: Authenticator, spool: Deliveries) -> None:
        self._submission = submission
        self._authenticator = authenticator
        self._spool = spool
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._tenants: dict[str, asyncio.Lock] = {}

    def application(self) -> FastAPI:
        """Routes, OpenAPI at /v1/openapi.json; no pages that load scripts of others."""
        app = FastAPI(title="Postroom", version="1", openapi_url="/v1/openapi.json", docs_url=None, redoc_url=None)
        refusals: dict[int | str, dict[str, Any]] = {
            status: {"model": Problem, "content": {"application/problem+json": {}}} for status in (400, 401, 403, 413, 415, 422, 429, 503)
        }
        for path, handler, answer, status in (
            ("/v1/messages", self.submit, Accepted, 202),
            ("/v1/messages/batch", self.submit_batch, BatchAnswer, 200),
        ):
            body = _body(Message, "message/rfc822") if answer is Accepted else _body(Batch)
            app.post(path, status_code=status, response_model=answer, responses=refusals, openapi_extra=body)(handler)
        shown: dict[int | str, dict[str, Any]] = {**{status: refusals[status] for status in (401, 422, 429, 503)}, 404: refusals[403]}
        app.get("/v1/messages/{message_id}", response_model=MessageAnswer, responses=shown, openapi_extra=SECURITY)(self.show)
        app.openapi = lambda: _described(app)  # type: ignore[method-assign]
        app.exception_handler(Refused)(_on_refused)
        app.exception_handler(RequestValidationError)(_on_invalid)
        app.exception_handler(HTTPException)(_on_http)
        app.exception_handler(Exception)(_on_unforeseen)
        return app

    # Who

    async def _identity(self, request: Request) -> Identity:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        claim = _basic(value) if scheme.lower() == "basic" else _bearer(value.strip()) if scheme.lower() == "bearer" else None
        if claim is None:
            raise Refused(Reply(535, "5.7.8", "Authentication required: Basic with user name and password, or Bearer"))
        outcome = await self._authenticator.check(claim, _address(request))
        if isinstance(outcome, Reply):
            raise Refused(outcome)
        return outcome

    # What

    async def submit(
        self,
        request: Request,
        sender: Annotated[str, Query(alias="from", max_length=320, description="reverse-path of a raw message")] = "",
        to: Annotated[list[str], Query(max_length=1000, description="recipients of a raw message")] = [],  # noqa: B006 - read alone
        idempotency_key: KEY = "",
    ) -> Any:
        """Takes one message: JSON, or raw (message/rfc822) with `from` and `to` in the query. It is safe on disk when this answers 202."""
        identity = await self._identity(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "message/rfc822":
            letter = Letter(identity, _mailbox(sender) if sender else None, tuple(dict.fromkeys(map(_mailbox, to))), _address(request))
            if not to:
                raise Refused(Reply(553, "5.1.3", "A raw message needs its recipients as `to` in the query"))
            answer = await self._raw(request, letter, idempotency_key)
        elif kind == "application/json":
            answer = await self._held(request, identity, lambda body: self._message(request, identity, body, idempotency_key))
        else:
            raise HTTPException(415, "Content-Type must be application/json or message/rfc822")
        return Accepted(id=answer.message_id) if answer.reply.kind == 2 else response(problem(answer.reply))

    async def _raw(self, request: Request, letter: Letter, key: str) -> Answer:
        blocks = _blocks(request, self._submission.size_limit(letter.identity))
        if not key:
            return await self._submission.submit(letter, blocks)
        async with self._room(letter.identity):  # the content must be known before it is offered
            content = b"".join([block async for block in blocks])
            marked = replace(letter, key=key, mark=_mark(content, str(letter.sender), *map(str, letter.recipients)))
            return await self._submission.submit(marked, _once(content))

    @contextlib.asynccontextmanager
    async def _room(self, identity: Identity) -> AsyncIterator[None]:
        """A place for a large body. Raises Refused when none becomes free in time."""
        own = self._tenants.setdefault(identity.domain.tenant, asyncio.Lock())
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(LARGE_WAIT_SECONDS):
                    await stack.enter_async_context(own)
                    await stack.enter_async_context(self._large)
            except TimeoutError:
                raise Refused(LATER) from None
            yield

    async def _held(self, request: Request, identity: Identity, work: Callable[[bytes], Any]) -> Any:
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) <= SMALL_JSON:
            return await work(b"".join([block async for block in _blocks(request, SMALL_JSON)]))
        async with self._room(identity):
            return await work(b"".join([block async for block in _blocks(request, MOST_JSON)]))

    async def _message(self, request: Request, identity: Identity, body: bytes, key: str) -> Answer:
        message = await asyncio.to_thread(_parse, Message, body)
        mark = _mark(body) if key else ""
        return await self._compose_and_submit(request, identity, message, key, mark)

    async def _compose_and_submit(self, request: Request, identity: Identity, message: Message, key: str, mark: str) -> Answer:
        try:
            content = await asyncio.to_thread(compose, message)
        except (ValueError, UnicodeError, LookupError) as error:
            raise Refused(Reply(554, "5.6.0", "The message cannot be written as RFC 5322 has it")) from error
        sender = (message.reverse_path or message.sender).mailbox
        return await self._submission.submit(Letter(identity, sender, tuple(message.recipients), _address(request), key, mark), _once(content))

    async def submit_batch(self, request: Request, idempotency_key: KEY = "") -> BatchAnswer:
        """Takes one content for many recipients, each of whom gets a message of their own; tells for each what became of it."""
        identity = await self._identity(request)
        return await self._held(request, identity, lambda body: self._batch(request, identity, body, idempotency_key))  # type: ignore[no-any-return]

    async def _batch(self, request: Request, identity: Identity, body: bytes, key: str) -> BatchAnswer:
        batch = await asyncio.to_thread(_parse, Batch, body)
        room, content = asyncio.Semaphore(BATCH_AT_ONCE), hashlib.sha256(body).digest()

        async def one(index: int) -> BatchResult:
            recipient = batch.recipients[index]
            own = f"{key}\n{recipient.address}" if key else ""
            async with room:
                try:
                    answer = await self._compose_and_submit(request, identity, batch.to(recipient), own, _mark(content) if key else "")
                except Refused as error:
                    answer = Answer(error.reply, "")
            accepted = answer.reply.kind == 2
            return BatchResult(recipient=recipient.address, **({"id": answer.message_id} if accepted else {"problem": problem(answer.reply)}))

        return BatchAnswer(results=list(await asyncio.gather(*map(one, range(len(batch.recipients))))))

    async def show(self, request: Request, message_id: str) -> Any:
        """Where a message is now; of one's own tenant alone."""
        identity = await self._identity(request)
        try:
            found = await self._spool.show(message_id, identity.domain.delivery_target) if is_message_id(message_id) else None
        except Unavailable:
            raise Refused(AWAY) from None
        if found is None or found.tenant != identity.domain.tenant:
            raise HTTPException(404, "There is no such message")
        return _answer(found)


def _answer(found: Status) -> MessageAnswer:
    recipients = [
        RecipientAnswer(
            address=r.address,
            state=r.state,
            attempts=r.attempts,
            nextAttempt=_time(r.due_at) if r.state == "scheduled" else None,
            lastReply=r.last_reply,
        )
        for r in found.recipients
    ]
    times = {"receivedAt": _time(found.received_at), "expiresAt": _time(found.expires_at)}
    return MessageAnswer(id=found.message_id, reversePath=found.reverse_path, recipients=recipients, **times)


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _basic(value: str) -> CheckPassword | None:
    """RFC 7617."""
    try:
        username, colon, password = base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return CheckPassword(username, password) if colon else None


def _bearer(value: str) -> CheckPassword | CheckToken | None:
    """A token of three parts is a ServiceAccount's; any other is user name and password, as in Basic."""
    return CheckToken("", value) if value.count(".") == 2 else _basic(value)


def _address(request: Request) -> str:
    """The client's; over a unix socket it is this machine's own, because nobody else can reach that."""
    return request.client.host if request.client is not None and request.client.host else "127.0.0.1"


def _mailbox(text: str) -> Mailbox:
    try:
        return parse_mailbox(text, utf8=True)
    except BadAddress as error:
        raise Refused(Reply(553, "5.1.3", f"{text[:80]!r}: {error}")) from error


def _mark(*parts: bytes | str) -> str:
    digest = hashlib.sha256(b"\0".join(part if isinstance(part, bytes) else part.encode() for part in parts))
    return f"http-{digest.hexdigest()[:40]}"


async def _once(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 64 * 1024):
        yield content[start : start + 64 * 1024]


async def _blocks(request: Request, most: int) -> AsyncIterator[bytes]:
    """The body; Refused for one that is too large, too slow or cut off."""
    octets = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for block in request.stream():
                octets += len(block)
                if octets > most:
                    raise Refused(Reply(552, "5.3.4", f"The body is larger than the limit of {most} octets"))
                yield block
    except (TimeoutError, ClientDisconnect) as error:
        raise HTTPException(400, "The body did not arrive whole in time") from error


def _parse(model: type[Any], body: bytes) -> Any:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_input=False, include_url=False, include_context=False)) from error


def _described(app: FastAPI) -> dict[str, Any]:
    """OpenAPI with the ways to authenticate."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    document.setdefault("components", {})["securitySchemes"] = {
        "basic": {"type": "http", "scheme": "basic", "description": "user name and password of a credential"},
        "bearer": {"type": "http", "scheme": "bearer", "description": "the token of a ServiceAccount, or base64 of USER:PASSWORD"},
    }
    return document


def _body(model: type[BaseModel], raw: str = "") -> dict[str, Any]:
    """The request's body for OpenAPI; it is read by hand, because authentication comes first."""
    content: dict[str, Any] = {"application/json": {"schema": _inline(model.model_json_schema(by_alias=True))}}
    if raw:
        content[raw] = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": content}, **SECURITY}


def _inline(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with its definitions put where they are used; ours are not recursive."""
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolve({**definitions[node["$ref"].rpartition("/")[2]], **{k: v for k, v in node.items() if k != "$ref"}})
            return {key: resolve(value) for key, value in node.items()}
        return [resolve(item) for item in node] if isinstance(node, list) else node

    resolved: dict[str, Any] = resolve(schema)
    return resolved


async def _on_refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    return response(problem(error.reply))


async def _on_unforeseen(_: Request, error: Exception) -> JSONResponse:
    """What nobody foresaw is for later, and its text for the log alone."""
    log.error("a request ended by an unforeseen error", exc_info=error)
    return response(problem(AWAY))


async def _on_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = "; ".join(f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()[:5])
    return response(Problem(title="Not acceptable", status=422, detail=faults, code="501 5.5.4"))


async def _on_http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return response(Problem(title="Not possible", status=error.status_code, detail=str(error.detail), code=""))
