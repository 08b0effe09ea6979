"""Passwords over time: which verifiers a credential has, when a generated password is renewed, and how long the old one stays valid. Pure.

The state stands beside the directory document as verifiers, never as passwords. A verifier belongs to one version of its Secret: a new version
means a new verifier, and with an overlap the former one stays valid for that long.
"""

import base64
import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from postroom_core.documents import Verifier
from postroom_operator.plan import durations
from postroom_operator.plan.conditions import moment, stamp
from postroom_operator.plan.names import CREDENTIAL, GROUP, Object, Owner, encoded, make

GENERATED_AT = f"{GROUP}/generated-at"
BASIC_AUTH = "kubernetes.io/basic-auth"


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of one credential."""

    source: str  # uid and resourceVersion of its Secret
    username: str
    verifier: Verifier = field(repr=False)
    previous: tuple[tuple[Verifier, datetime], ...] = field(default=(), repr=False)  # with the end of its validity
    given: Verifier | None = field(default=None, repr=False)  # of the Secret's previousPassword


def source_of(secret: Object) -> str:
    """Names one version of a Secret."""
    return f"{secret['metadata']['uid']}/{secret['metadata']['resourceVersion']}"


def renewed(held: Held | None, source: str, login: tuple[str, Verifier, Verifier | None], overlap: timedelta, now: datetime) -> Held:
    """After the Secret has changed; `login` is its user name and the verifiers of its password and previousPassword."""
    username, verifier, given = login
    previous = held.previous if held is not None else ()
    if held is not None and overlap and held.username == username:
        previous = ((held.verifier, now + overlap), *previous)
    # Two rotations within one overlap are as many as anybody means.
    return without_expired(Held(source, username, verifier, previous[:2], given), now)


def without_expired(held: Held, now: datetime) -> Held:
    """Only what is valid now."""
    return replace(held, previous=tuple((verifier, until) for verifier, until in held.previous if until > now))


def salt_of(held: Held | None, username: str) -> bytes | None:
    """The SCRAM salt that new passwords of the user name must take on, see postroom_operator.verifiers; None for a first one."""
    return base64.b64decode(held.verifier.scram.salt) if held is not None and held.username == username else None


def overlap_of(entry: Object) -> timedelta:
    """How long a former password stays valid; none without `rotation`."""
    return timedelta(seconds=durations.seconds(entry["rotation"]["overlap"])) if "rotation" in entry else timedelta()


def renewal(entry: Object, secret: Object, now: datetime) -> timedelta | None:
    """Time until a generated password is due for renewal (not positive: now); None for what never is."""
    made = secret["metadata"].get("annotations", {}).get(GENERATED_AT)
    if "rotation" not in entry or made is None:
        return None
    return moment(made) + timedelta(seconds=durations.seconds(entry["rotation"]["interval"])) - now


def generated_secret(owner: Owner, name: str, username: str, password: str, now: datetime) -> Object:
    """A credential's Secret that we make because there is none."""
    body = make(("v1", "Secret"), owner.namespace, name, owner, labels={CREDENTIAL: "true"}, annotations={GENERATED_AT: stamp(now)}, type=BASIC_AUTH)
    body["data"] = encoded({"username": username, "password": password})
    return body


def renewed_password(secret: Object, password: str, now: datetime) -> Object:
    """The merge patch, guarded by the version that we saw."""
    version = secret["metadata"]["resourceVersion"]
    return {"metadata": {"resourceVersion": version, "annotations": {GENERATED_AT: stamp(now)}}, "data": encoded({"password": password})}


def dump(held: dict[str, Held]) -> str:
    """As it stands in the directory Secret, by credential."""
    return json.dumps(
        {
            name: {
                "source": found.source,
                "username": found.username,
                "verifier": found.verifier.model_dump(),
                "previous": [{"verifier": verifier.model_dump(), "until": stamp(until)} for verifier, until in found.previous],
                "given": found.given.model_dump() if found.given is not None else None,
            }
            for name, found in sorted(held.items())
        },
        sort_keys=True,
    )


def load(text: str) -> dict[str, Held]:
    """What `dump` wrote; nothing for what it did not, then every verifier is made anew."""
    try:
        return {name: _held(found) for name, found in json.loads(text).items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _held(found: dict[str, Any]) -> Held:
    previous = tuple((Verifier.model_validate(entry["verifier"]), moment(entry["until"])) for entry in found["previous"])
    given = Verifier.model_validate(found["given"]) if found.get("given") is not None else None
    return Held(found["source"], found["username"], Verifier.model_validate(found["verifier"]), previous, given)
