"""What one MailDomain becomes: the objects that are wanted, the conditions and the rest of its status. Pure: gathered facts in, data out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from postroom_core.documents import KeySet, SenderDomain
from postroom_operator.plan import conditions, dkim, dns, durations, tls
from postroom_operator.plan.conditions import Condition
from postroom_operator.plan.directory import document_secret
from postroom_operator.plan.dkim import Key, Policy, Rotation, Seen, State
from postroom_operator.plan.dns import DnsRecord
from postroom_operator.plan.domain import CompiledDomain
from postroom_operator.plan.findings import Problem
from postroom_operator.plan.names import Object, Owner, make, workload
from postroom_operator.plan.tls import Found

NEEDED = ("Accepted", "CredentialsReady", "KeysReady", "DNSReady", "TLSReady")
# Mail waits up to the pool's maxAge; then resolvers may still hold the record for its TTL; an hour is for clocks and slow readers.
SLACK = timedelta(hours=1)
# A TXT string has 255 octets at most (RFC 1035 section 3.3.14).
TXT_OCTETS = 255
RETAIN = "Retain"


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are in this installation."""

    platform: str
    keys: str

    def delivery_target(self, namespace: str, pool: str) -> str:
        """gRPC target of a pool's delivery."""
        return f"dns:///{workload(namespace, pool, self.platform)}.{self.platform}.svc.cluster.local:7443"


@dataclass(frozen=True, slots=True)
class Facts:
    """What was gathered about an accepted MailDomain."""

    owner: Owner
    spec: Object
    compiled: CompiledDomain
    state: str = field(repr=False)  # of its credentials
    missing: tuple[str, ...]  # why credentials cannot be used, in words
    rotation: Rotation | None  # None without DKIM
    keyset: KeySet | None
    records: tuple[DnsRecord, ...]
    seen: Mapping[tuple[str, str], Seen]  # by name and type
    external_dns: bool
    cert_manager: bool
    certificate: Found
    pool: str  # the pool's workload
    senders: SenderDomain
    webhook_problems: tuple[Problem, ...] = ()
    nameless: bool = False  # the installation has no name in the world
    acknowledged: int | None = None  # the generation that is in force at every ingress
    before: Object = field(default_factory=dict)  # the status that stands there: what was seen before a restart counts until the next look


def policy(spec: Object, max_age: float, trusted: Mapping[str, float], *, may_rotate: bool) -> Policy:
    """The rotation policy. `trusted` are the installation's check and settle times, `max_age` the pool's, all in seconds."""
    rotation = spec["dkim"]["rotation"]
    hours = {name: timedelta(seconds=durations.seconds(rotation[name])) for name in ("interval", "overlap", "publishTimeout")}
    ttl = timedelta(seconds=spec.get("dns", {}).get("ttlSeconds", dns.TTL_SECONDS))
    return Policy(
        algorithms=tuple(spec["dkim"]["algorithms"]),
        interval=hours["interval"],
        overlap=max(hours["overlap"], timedelta(seconds=max_age) + ttl + SLACK),
        publish_timeout=hours["publishTimeout"],
        trigger=rotation["trigger"],
        imported=frozenset(entry["selector"] for entry in spec["dkim"].get("importedKeys", [])),
        may_rotate=may_rotate,
        check_every=timedelta(seconds=trusted["check"]),
        settle=timedelta(seconds=trusted["settle"]),
    )


def wanted(facts: Facts, places: Places) -> list[Object]:
    """The objects of an accepted MailDomain, but for its keys and generated passwords."""
    owner = facts.owner
    found = [document_secret(owner, places.platform, "ingress", facts.compiled.document, state=facts.state)]
    if facts.keyset is not None:
        found.append(document_secret(owner, places.keys, "signer", facts.keyset))
    found.append(document_secret(owner, places.platform, "delivery", facts.senders, pool=facts.pool))
    if facts.certificate.document is not None:
        found.append(document_secret(owner, places.platform, "ingress", facts.certificate.document))
    if facts.cert_manager and "issuerRef" in facts.spec.get("tls", {}):
        found.append(tls.certificate(owner, facts.spec))
    if facts.external_dns and facts.records:
        found.append(_endpoint(owner, facts))
    return found


def _endpoint(owner: Owner, facts: Facts) -> Object:
    ttl = facts.spec.get("dns", {}).get("ttlSeconds", dns.TTL_SECONDS)
    endpoints = [
        {"dnsName": record.name, "recordType": record.type, "recordTTL": ttl, "targets": [_split(record)]}
        for record in sorted(facts.records, key=lambda record: (record.name, record.type))
    ]
    found = make(("externaldns.k8s.io/v1alpha1", "DNSEndpoint"), owner.namespace, owner.name, owner, spec={"endpoints": endpoints})
    if facts.spec.get("deletionPolicy") == RETAIN:
        del found["metadata"]["ownerReferences"]  # or it would go with the MailDomain
    return found


def _split(record: DnsRecord) -> str:
    """A long TXT value as several quoted strings, which is how zone files and external-dns write it."""
    if record.type != "TXT" or len(record.value) <= TXT_OCTETS:
        return record.value
    parts = [record.value[at : at + TXT_OCTETS] for at in range(0, len(record.value), TXT_OCTETS)]
    return " ".join(f'"{part}"' for part in parts)


def observe(facts: Facts) -> list[Condition]:
    """The conditions of an accepted MailDomain, without Ready."""
    return [
        Condition("Accepted", "True", "Accepted"),
        _credentials(facts),
        _keys(facts),
        _dns(facts),
        _tls(facts),
        _rotating(facts),
        _webhooks(facts),
    ]


def refused(accepted: Condition) -> list[Condition]:
    """The conditions of one that is not."""
    names = ("CredentialsReady", "KeysReady", "DNSReady", "TLSReady", "DKIMRotating", "WebhooksReady")
    return [accepted, *(Condition(name, "Unknown", "NotAccepted") for name in names)]


def _credentials(facts: Facts) -> Condition:
    if facts.missing:
        return Condition("CredentialsReady", "False", "SecretUnusable", "; ".join(facts.missing))
    if facts.compiled.problems:
        return Condition("CredentialsReady", "False", "Invalid", "; ".join(str(problem) for problem in facts.compiled.problems))
    return Condition("CredentialsReady", "True", "Synced")


def _keys(facts: Facts) -> Condition:
    if facts.rotation is None:
        return Condition("KeysReady", "True", "Unsigned", "mail is not signed, because spec.dkim is absent")
    if facts.rotation.signing:
        return Condition("KeysReady", "True", "ActiveKey")
    told = facts.rotation.message or "no key may sign yet"
    reason = facts.rotation.reason if facts.rotation.reason != "Idle" else "NoActiveKey"
    return Condition("KeysReady", "False", reason, f"mail is answered 451: {told}")


def _dns(facts: Facts) -> Condition:
    provider = facts.spec.get("dns", {}).get("provider")
    if provider == "ExternalDNS" and not facts.external_dns:
        return Condition("DNSReady", "False", "ProviderAbsent", "external-dns's DNSEndpoint is not served here; publish status.dnsRecords by hand")
    needed = [record for record in facts.records if record.required]
    unseen = [record for record in needed if record.key not in facts.seen]
    if unseen:
        return _dns_before(facts) or Condition("DNSReady", "Unknown", "Checking", f"{len(unseen)} records are being looked at")
    bad = [record for record in needed if not facts.seen[record.key].everywhere]
    if not bad:
        unknown = facts.nameless and "returnPath" in facts.spec.get("dns", {})
        told = "the records of dns.returnPath are not known, because the installation has no hostname" if unknown else ""
        return Condition("DNSReady", "True", "AllVisible", told)
    words = "; ".join(f"{record.name}: {_shown(facts.seen[record.key])}" for record in bad)
    missing = all(facts.seen[record.key].gone or not facts.seen[record.key].total for record in bad)
    return Condition("DNSReady", "False", "RecordMissing" if missing else "RecordMismatch", f"{words}; publish status.dnsRecords as they stand there")


def _dns_before(facts: Facts) -> Condition | None:
    for known in facts.before.get("conditions", []):
        if known["type"] == "DNSReady" and known["reason"] != "NotAccepted":
            return Condition("DNSReady", known["status"], known["reason"], known["message"])
    return None


def _shown(seen: Seen) -> str:
    return f"{seen.agree} of {seen.total} name servers show it" if seen.total else "its zone is not found"


def _tls(facts: Facts) -> Condition:
    return tls.observe(facts.certificate, facts.spec, cert_manager=facts.cert_manager)


def _rotating(facts: Facts) -> Condition:
    if facts.rotation is None:
        return Condition("DKIMRotating", "False", "Unsigned")
    busy = facts.rotation.reason in ("WaitingForDNS", "WaitingForSigners", "PublishTimeout")
    return Condition("DKIMRotating", "True" if busy else "False", facts.rotation.reason, facts.rotation.message)


def _webhooks(facts: Facts) -> Condition:
    """Whether they are in force, not whether their targets answer: delivery tells that. Mail does not wait for them, so Ready does not either."""
    if facts.webhook_problems:
        return Condition("WebhooksReady", "False", "Invalid", "; ".join(map(str, facts.webhook_problems)))
    return Condition("WebhooksReady", "True", "InForce" if facts.senders.webhooks else "None")


def status(facts: Facts, rotation_policy: Policy | None) -> Object:
    """Status but for conditions and observedGeneration."""
    found: Object = tls.status(facts.certificate)
    if facts.acknowledged is not None:
        found["limitsGeneration"] = facts.acknowledged
    if facts.rotation is not None and rotation_policy is not None:
        found["dkim"] = {
            "keys": [_key(key) for key in sorted(facts.rotation.keys, key=lambda key: key.selector)],
            "effectiveOverlap": f"{int(rotation_policy.overlap.total_seconds() // 3600)}h",
        }
        if (oldest := facts.rotation.next_rotation) is not None and not rotation_policy.imported:
            found["dkim"]["nextRotationTime"] = conditions.stamp(oldest + rotation_policy.interval)
    before = {(known["name"], known["type"], known["value"]): known for known in facts.before.get("dnsRecords", [])}
    found["dnsRecords"] = [
        before[key] if record.key not in facts.seen and (key := (record.name, record.type, record.value)) in before else _record(record, facts.seen)
        for record in facts.records
    ]
    return found


def _key(key: Key) -> Object:
    found: Object = {"selector": key.selector, "algorithm": key.algorithm, "state": str(key.state)}
    if key.activated is not None:
        found["activatedAt"] = conditions.stamp(key.activated)
    if key.retire_after is not None and key.state == State.RETIRING:
        found["retireAfter"] = conditions.stamp(key.retire_after)
    return found


def _record(record: DnsRecord, looks: Mapping[tuple[str, str], Seen]) -> Object:
    seen = looks.get(record.key)
    found: Object = {
        "name": record.name,
        "type": record.type,
        "value": record.value,
        "required": record.required,
        "purpose": record.purpose,
        "visible": "Unknown",
    }
    if seen is not None:
        found |= {"visible": "True" if seen.everywhere else "False", "authoritativeAgree": seen.agree, "authoritativeTotal": seen.total}
    return found


def in_dns(rotation: Rotation) -> Sequence[Key]:
    """The keys whose records are wanted."""
    return [key for key in rotation.keys if key.state in dkim.IN_DNS]
