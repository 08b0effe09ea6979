"""DKIM keys as Secrets in the key namespace: the state of rotation stands beside the key, so that a lost status or a restart loses nothing. Pure.

The data is immutable; annotations carry the state. A Secret's name is (domain, algorithm, number): two leaders that make a key at once make one.
"""

from datetime import datetime
from typing import Any

from postroom_core.documents import KeySet, SigningKey
from postroom_operator.plan.conditions import moment, stamp
from postroom_operator.plan.dkim import Key, Rotation, State
from postroom_operator.plan.keys import StoredKey
from postroom_operator.plan.names import GROUP, KEY_TYPE, Object, Owner, bounded, decoded, encoded, make

PRIVATE = "tls.key"
_TIMES = {
    "created": "created-at",
    "published": "published-at",
    "last_pass": "last-pass-at",
    "activated": "activated-at",
    "retire_after": "retire-after",
    "revoked": "revoked-at",
}


def _annotation(name: str) -> str:
    return f"{GROUP}/{name}"


def secret_name(domain: str, algorithm: str, number: int) -> str:
    """Of the number-th key of an algorithm."""
    return bounded(f"dkim-{domain}-{algorithm.lower()}-{number}")


def next_number(secrets: list[Object], algorithm: str) -> int:
    """One more than the highest there is."""
    numbers = [int(found["metadata"]["annotations"].get(_annotation("number"), 0)) for found in secrets if _is(found, algorithm)]
    return max(numbers, default=0) + 1


def _is(secret: Object, algorithm: str) -> bool:
    return bool(secret["metadata"]["annotations"].get(_annotation("algorithm")) == algorithm)


def to_secret(owner: Owner, place: tuple[str, str], key: Key, pem: str, public: str, number: int) -> Object:
    """A new key's Secret at (namespace, name)."""
    fixed = {"selector": key.selector, "algorithm": key.algorithm, "number": str(number), "public-key": public}
    annotations = {_annotation(name): value for name, value in fixed.items()} | state_annotations(key)
    body = make(("v1", "Secret"), place[0], place[1], owner, annotations=annotations, type=KEY_TYPE, immutable=True)
    body["data"] = encoded({PRIVATE: pem})
    return body


def state_annotations(key: Key) -> dict[str, Any]:
    """What changes in a key's life; None removes an annotation."""
    found: dict[str, Any] = {_annotation("state"): str(key.state), _annotation("passes"): str(key.passes), _annotation("trigger"): key.trigger}
    found[_annotation("imported")] = "true" if key.imported else "false"
    for field, name in _TIMES.items():
        value: datetime | None = getattr(key, field)
        found[_annotation(name)] = stamp(value) if value is not None else None
    return {name: value for name, value in found.items() if value is not None}


def from_secret(secret: Object) -> Key:
    """Raises ValueError or KeyError for what is no such Secret."""
    notes = secret["metadata"]["annotations"]
    times = {field: moment(notes[_annotation(name)]) if notes.get(_annotation(name)) else None for field, name in _TIMES.items()}
    created = times.pop("created")
    if created is None:
        raise ValueError("no created-at")
    return Key(
        selector=notes[_annotation("selector")],
        algorithm=notes[_annotation("algorithm")],
        state=State(notes[_annotation("state")]),
        created=created,
        trigger=notes.get(_annotation("trigger"), ""),
        imported=notes.get(_annotation("imported")) == "true",
        passes=int(notes.get(_annotation("passes"), 0)),
        **times,
    )


def by_selector(secrets: list[Object]) -> dict[str, Object]:
    return {secret["metadata"]["annotations"][_annotation("selector")]: secret for secret in secrets}


def stored_key(domain: str, key: Key, secret: Object) -> StoredKey:
    """With its public part, for the DNS records."""
    public = secret["metadata"]["annotations"][_annotation("public-key")]
    return StoredKey(domain, key.selector, key.algorithm, public, key.state == State.ACTIVE, "")


def keyset(domain: str, tenant: str, rotation: Rotation, secrets: list[Object]) -> KeySet:
    """What the signers get: keys that sign, and keys that they shall hold for the moment when they do."""
    known = by_selector(secrets)
    keys = []
    for key in rotation.keys:
        signs = key.selector in rotation.signing
        if not signs and key.selector not in rotation.standby:
            continue
        private = decoded(known[key.selector])[PRIVATE]
        keys.append(_signing_key(key, private, signs=signs))
    return KeySet(name=domain, tenant=tenant, keys=tuple(sorted(keys, key=lambda key: key.selector)))


def _signing_key(key: Key, private: str, *, signs: bool) -> SigningKey:
    return SigningKey(selector=key.selector, algorithm="Ed25519" if key.algorithm == "Ed25519" else "RSA2048", private_key=private, signs=signs)
