"""The webhooks of a MailDomain → of delivery's document. Pure. One with a problem is left out: mail flows, and the problem is told."""

from typing import Any

from postroom_core.documents import Webhook, webhook_key
from postroom_operator.plan.findings import Lookup, Problem
from postroom_operator.resources import Resource

# The Secret's key, and that of the former secret while receivers change over.
KEYS = ("secret", "previousSecret")


def compile_webhooks(resource: Resource, secret: Lookup, problems: list[Problem]) -> tuple[Webhook, ...]:
    """`secret` finds the Secrets; what is wrong is added to `problems`."""
    found = [_webhook(resource.namespace, index, entry, secret, problems) for index, entry in enumerate(resource.spec.get("webhooks", []))]
    return tuple(webhook for webhook in found if webhook is not None)


def _webhook(namespace: str, index: int, entry: dict[str, Any], lookup: Lookup, problems: list[Problem]) -> Webhook | None:
    path = ("webhooks", index)
    name = entry["secretRef"]["name"]
    held = lookup((namespace, name))
    secrets = [held.data[key] for key in KEYS if held is not None and held.data.get(key)]
    if not secrets or not all(_is_secret(text) for text in secrets):
        problems.append(Problem((*path, "secretRef"), f"no Secret {name} with secret: whsec_ and 24 to 64 octets in base64"))
        return None
    return Webhook(name=entry["name"], url=entry["url"], events=tuple(event.lower() for event in entry["events"]), secrets=tuple(secrets))


def _is_secret(text: str) -> bool:
    try:
        return bool(webhook_key(text))
    except ValueError:
        return False
