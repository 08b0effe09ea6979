"""The page as an aiohttp application: who asks, what for, and the answer as HTML that needs no other host and no build step.

A request passes `guard`: headers that forbid everything foreign, a session for everything but the login, and for a POST the role, the form's
proof and our own origin. Reading changes nothing; every change is a POST that was confirmed on a page of its own.
"""

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import quote, urlsplit

import jinja2
import structlog
from aiohttp import web

from postroom_core.errors import Permanent, Unavailable
from postroom_web import pages
from postroom_web.login import SESSION_MS, Gate, Session
from postroom_web.source import Source

log = structlog.get_logger(__name__)
COOKIE = "postroom_session"
SESSION: web.RequestKey[Session | None] = web.RequestKey("session", Session)
# A form has some hundred message ids at most.
MOST_FORM = 64 * 1024
# Guessing 256 bits is hopeless anyway; this keeps it from being noise in the log.
REFUSED_SECONDS = 0.5
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer browsers name no origin in a POST
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_OPEN = ("/login", "/assets/")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Page:
    """`source` answers, `gate` knows who may ask. `pages` make the values that the templates show."""

    def __init__(self, source: Source, gate: Gate) -> None:
        self._source = source
        self._gate = gate
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("postroom_web"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self._templates.filters |= pages.FILTERS

    def routes(self) -> list[web.AbstractRouteDef]:
        """To be added to an application, with `guard` as a middleware."""
        return [
            web.get("/", self.overview),
            web.get("/login", self.login_form),
            web.post("/login", self.login),
            web.post("/logout", self.logout),
            web.get("/queue", self.queue),
            web.get("/queue/confirm", self.confirm),
            web.post("/queue/act", self.act),
            web.get("/messages/{id}", self.message),
            web.get("/domains", self.domains),
            web.get("/domains/{name}", self.domain),
            web.get("/destinations", self.destinations),
            web.get("/destinations/{name}", self.destination),
            web.post("/destinations/suspend", self.suspend),
            web.get("/suppressions", self.suppressions),
            web.get("/suppressions/confirm", self.confirm_removal),
            web.post("/suppressions/remove", self.remove_suppression),
            web.get("/assets/{name}", _asset),
        ]

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every request to the page passes here; the paths of other applications on this port do not."""
        session = self._gate.session(request.cookies.get(COOKIE, ""), self._source.now())
        request[SESSION] = session
        refusal = await self._refusal(request, session)
        response = refusal or await self._answer(request, handler)
        response.headers.update(HEADERS)
        return response

    async def _refusal(self, request: web.Request, session: Session | None) -> web.StreamResponse | None:
        if request.method == "POST" and not _same_origin(request):
            return web.Response(status=403, text="This form came from another site.\n")
        if request.path.startswith(_OPEN):
            return None
        if session is None:
            if "X-Fragment" in request.headers:
                return web.Response(status=401)
            return _see("/login")
        if request.method == "POST":
            form = await request.post()
            if not self._gate.proves(session, str(form.get("proof", ""))):
                return web.Response(status=403, text="This form is too old or came from another site; go back and load the page again.\n")
            if not session.may_act and request.path != "/logout":
                return web.Response(status=403, text="Your token is for looking; acting needs the operator's.\n")
        return None

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            return web.Response(status=error.status, text=f"{error.reason}\n")
        except (Unavailable, TimeoutError) as error:
            return self._render(request, "problem.html", 503, title="Delivery does not answer", text=str(error))
        except Permanent as error:
            return self._render(request, "problem.html", 404, title="Not found", text=str(error))

    def _render(self, request: web.Request, template: str, status: int = 200, **values: object) -> web.Response:
        session: Session | None = request[SESSION]
        proof = self._gate.proof(session) if session is not None else ""
        text = self._templates.get_template(template).render(session=session, proof=proof, path=request.path, now=self._source.now(), **values)
        return web.Response(text=text, content_type="text/html", status=status)

    # Who

    async def login_form(self, request: web.Request) -> web.Response:
        return self._render(request, "login.html", refused=False)

    async def login(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        session = self._gate.admit(str(form.get("token", "")), self._source.now())
        if session is None:
            log.warning("a login to the page was refused", client=request.remote)
            await asyncio.sleep(REFUSED_SECONDS)
            return self._render(request, "login.html", 401, refused=True)
        response = _see("/")
        cookie = self._gate.cookie(session)
        response.set_cookie(COOKIE, cookie, max_age=SESSION_MS // 1000, httponly=True, samesite="Strict", secure=request.secure, path="/")
        return response

    async def logout(self, request: web.Request) -> web.StreamResponse:
        response = _see("/login")
        response.del_cookie(COOKIE, path="/")
        return response

    # Looking

    async def overview(self, request: web.Request) -> web.Response:
        async with self._source.queue() as queue:
            values = await pages.overview(queue, self._source.now())
        return self._render(request, "overview.html", **values)

    async def queue(self, request: web.Request) -> web.Response:
        async with self._source.queue() as queue:
            values = await pages.queue(queue, request.query)
        return self._render(request, "queue.html", **values)

    async def message(self, request: web.Request) -> web.Response:
        async with self._source.queue() as queue:
            values = await pages.message(queue, request.match_info["id"])
        return self._render(request, "message.html", **values)

    async def domains(self, request: web.Request) -> web.Response:
        async with self._source.queue() as queue:
            values = await pages.domains(queue, self._source.domains(), self._source.now())
        return self._render(request, "domains.html", **values)

    async def domain(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        records = self._source.domains().get(name)
        if records is None:
            raise Permanent(f"there is no MailDomain {name}")
        findings = await self._source.check(name) if "check" in request.query else None
        async with self._source.queue() as queue:
            values = await pages.domain(queue, name, self._source.now())
        return self._render(request, "domain.html", records=records, findings=findings, **values)

    async def destinations(self, request: web.Request) -> web.Response:
        async with self._source.queue() as queue:
            values = await pages.destinations(queue, self._source.now())
        return self._render(request, "destinations.html", **values)

    async def destination(self, request: web.Request) -> web.Response:
        async with self._source.queue() as queue:
            values = await pages.destination(queue, request.match_info["name"], self._source.now())
        return self._render(request, "destination.html", **values)

    async def suppressions(self, request: web.Request) -> web.Response:
        async with self._source.queue() as queue:
            values = await pages.suppressions(queue, request.query)
        return self._render(request, "suppressions.html", **values)

    # Acting

    async def confirm(self, request: web.Request) -> web.Response:
        """What will be done, in words, and the button that does it. Changes nothing."""
        return self._render(request, "confirm.html", **pages.confirmation(request.query))

    async def act(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        asked = pages.confirmation(form)
        async with self._source.queue() as queue:
            changed = await queue.act(asked["action"], asked["ids"])
        log.info("an operator acted on the queue", action=asked["action"], messages=len(asked["ids"]), recipients=changed, client=request.remote)
        return _see(f"/queue?done={asked['action']}&changed={changed}")

    async def confirm_removal(self, request: web.Request) -> web.Response:
        async with self._source.queue() as queue:
            entry = await pages.suppressed(queue, request.query)
        return self._render(request, "removal.html", entry=entry)

    async def remove_suppression(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        async with self._source.queue() as queue:
            entry = await pages.suppressed(queue, form)
            await queue.change_suppressions([entry], remove=True)
        log.info("an operator removed an address from the suppression list", scope=entry.scope, owner=entry.owner, client=request.remote)
        return _see(f"/suppressions?removed={quote(entry.address)}")

    async def suspend(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        pool, name, suspended = str(form.get("pool", "")), str(form.get("destination", "")), form.get("suspended") == "yes"
        if not pool or not name:
            raise Permanent("name the pool and the destination")
        async with self._source.queue() as queue:
            await queue.suspend(pool, name, suspended=suspended)
        log.info("an operator changed a destination", pool=pool, destination=name, suspended=suspended, client=request.remote)
        return _see("/destinations")


def _see(place: str) -> web.Response:
    """The answer to a form that was done: look there."""
    return web.Response(status=303, headers={"Location": place})


def _same_origin(request: web.Request) -> bool:
    """A browser names the origin of every POST; one that is not ours is refused. Clients without a browser send none, and have no cookie."""
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.host


async def _asset(request: web.Request) -> web.StreamResponse:
    found = pages.ASSETS.get(request.match_info["name"])
    if found is None:
        raise web.HTTPNotFound
    content, kind = found
    return web.Response(body=content, content_type=kind, charset="utf-8")


def install(app: web.Application, page: Page) -> None:
    """Adds the page to an application that has other paths: those stay as they are."""
    ours = {route.path for route in page.routes() if isinstance(route, web.RouteDef)}

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        if resource is not None and resource.canonical in ours:
            return await page.guard(request, handler)
        return await handler(request)

    app.middlewares.append(guarded)
    app.add_routes(page.routes())
