"""What kopf does for us: a long-lived daemon per resource, the finalizer, login. No logic; kopf's handlers of changes are edge-triggered: unused."""

import random
from collections.abc import Awaitable, Callable
from typing import Any

import kopf

from postroom_core.errors import PostroomError
from postroom_operator.plan.names import FINALIZER, GROUP, VERSION
from postroom_operator.reconcile.engine import Engine, Work

Finalize = Callable[[str, str, str], Awaitable[None]]  # namespace, name, uid
# A thousand resources after a restart do not all begin in the same moment.
SPREAD_SECONDS = 2.0
RETRY_SECONDS = 5.0


def register(engine: Engine, parts: dict[str, tuple[str, Work, Finalize]]) -> kopf.OperatorRegistry:
    """A registry of its own for kind → (plural, reconcile, finalize)."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(_login)
    kopf.on.startup(registry=registry)(_configure)
    for kind, (plural, work, finalize) in parts.items():
        _slim(registry, plural)
        _serve(registry, engine, kind, plural, work)
        _finalize(registry, engine, plural, finalize)
    return registry


def _slim(registry: kopf.OperatorRegistry, plural: str) -> None:
    """kopf keeps the last body of every resource: without the parts that nobody asks it for a thousand take 4 MB instead of 33."""

    @kopf.on.event(GROUP, VERSION, plural, registry=registry, id=f"{plural}-slim")
    async def slim(event: kopf.RawEvent, **_: Any) -> None:
        body: dict[str, Any] = event["object"]  # type: ignore[assignment]  # its own type says that nobody changes it
        body.pop("status", None)
        body["metadata"].pop("managedFields", None)


def _serve(registry: kopf.OperatorRegistry, engine: Engine, kind: str, plural: str, work: Work) -> None:
    @kopf.daemon(GROUP, VERSION, plural, registry=registry, id=f"{plural}-loop", cancellation_timeout=1.0, initial_delay=_spread)
    async def loop(uid: str, namespace: str | None, name: str, **_: Any) -> None:
        await engine.serve(kind, uid, (namespace or "", name), work)


def _finalize(registry: kopf.OperatorRegistry, engine: Engine, plural: str, finalize: Finalize) -> None:
    @kopf.on.delete(GROUP, VERSION, plural, registry=registry, id=f"{plural}-end")
    async def end(uid: str, namespace: str | None, name: str, **_: Any) -> None:
        try:
            async with engine.ending(uid):
                await finalize(namespace or "", name, uid)
        except PostroomError as error:
            raise kopf.TemporaryError(str(error), delay=RETRY_SECONDS) from error


def _spread(**_: Any) -> float:
    return random.uniform(0, SPREAD_SECONDS)


def _login(settings: kopf.OperatorSettings, **kwargs: Any) -> kopf.ConnectionInfo | None:
    """The pod's ServiceAccount, or a kubeconfig; no second Kubernetes client is loaded for it."""
    return kopf.login_with_service_account(settings=settings, **kwargs) or kopf.login_with_kubeconfig(settings=settings, **kwargs)


async def _configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """kopf's defaults are for trying out: minutes of time-outs, Events for everything, rights on CRDs and namespaces."""
    settings.persistence.finalizer = FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=f"kopf.{GROUP}", v1=False)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=f"kopf.{GROUP}", v1=False)
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.watching.server_timeout = 290
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.execution.default_backoff = 10
    settings.process.ultimate_exiting_timeout = 20
    settings.background.cancellation_polling = 1
