"""The CRDs on a real API server: every rule with one document that it accepts and one that it refuses at the right field."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from postroom_operator import schema

from integration.operator.apiserver import ApiServer

Change = Callable[[dict[str, Any]], None]
GROUP = "/apis/mail.postroom.dev/v1alpha1"
PLURALS = {"MailDomain": "maildomains", "SendingPool": "sendingpools"}
MINIMAL: dict[str, dict[str, Any]] = {
    "MailDomain": {
        "domainName": "a.example",
        "poolRef": {"name": "main"},
        "credentials": [{"name": "app", "secretRef": {"name": "app"}, "allowedSenders": ["*@a.example"]}],
        "clients": [{"name": "host", "cidrs": ["10.0.0.0/8"], "allowedSenders": ["x@sub.a.example"]}],
        "dkim": {},
        "limits": {},
    },
    "SendingPool": {"destinationLimits": [{"name": "all", "match": ["*"]}]},
}


def document(kind: str, spec: dict[str, Any], name: str = "a") -> dict[str, Any]:
    return {"apiVersion": schema.GROUP, "kind": kind, "metadata": {"name": name}, "spec": copy.deepcopy(spec)}


def put(path: tuple[str | int, ...], value: Any) -> Change:
    """A change of one field below spec; None removes it."""

    def change(spec: dict[str, Any]) -> None:
        node: Any = spec
        for step in path[:-1]:
            node = node.setdefault(step, {}) if isinstance(node, dict) else node[step]
        if value is None:
            del node[path[-1]]
        else:
            node[path[-1]] = value

    return change


def create(api: ApiServer, kind: str, spec: dict[str, Any], name: str = "a") -> tuple[int, Any]:
    """A dry run: nothing is kept."""
    return api.request("POST", f"{GROUP}/namespaces/default/{PLURALS[kind]}?dryRun=All", document(kind, spec, name))


# kind, accepted, refused, field, words of the message
RULES: list[tuple[str, Change, Change, str, str]] = [
    ("SendingPool", put(("reputation", "hardBouncePercent"), {"alert": 1, "pause": 1}),
     put(("reputation", "hardBouncePercent"), {"alert": 2, "pause": 1}), "spec.reputation.hardBouncePercent", "must not exceed"),
    ("SendingPool", put(("reputation", "complaintPercent"), {"alert": 1, "pause": 1}),
     put(("reputation", "complaintPercent"), {"alert": 2, "pause": 1}), "spec.reputation.complaintPercent", "must not exceed"),
    ("SendingPool", put(("reputation", "spamPercent"), {"alert": 1, "pause": 1}),
     put(("reputation", "spamPercent"), {"alert": 2, "pause": 1}), "spec.reputation.spamPercent", "must not exceed"),
    ("SendingPool", put(("reputation", "volumeTimes"), {"alert": 1, "pause": 1}),
     put(("reputation", "volumeTimes"), {"alert": 2, "pause": 1}), "spec.reputation.volumeTimes", "must not exceed"),
    ("MailDomain", put(("credentials", 0, "allowedSenders"), ["b@a.example"]), put(("credentials", 0, "allowedSenders"), ["*@b.example"]),
     "spec.credentials", "inside of domainName"),
    ("MailDomain", put(("clients", 0, "allowedSenders"), ["*@a.example"]), put(("clients", 0, "allowedSenders"), ["*@ba.example"]),
     "spec.clients", "inside of domainName"),
    ("MailDomain", put(("credentials", 0, "allowedSourceCIDRs"), ["2001:db8::/32"]), put(("credentials", 0, "allowedSourceCIDRs"), ["10.0.0.1/8"]),
     "spec.credentials[0].allowedSourceCIDRs[0]", "without host bits"),
    ("MailDomain", put(("clients", 0, "cidrs"), ["192.0.2.1/32"]), put(("clients", 0, "cidrs"), ["192.0.2.1"]),
     "spec.clients[0].cidrs[0]", "without host bits"),
    ("MailDomain", put(("dkim", "algorithms"), ["RSA2048"]), put(("dkim", "algorithms"), ["Ed25519"]), "spec.dkim.algorithms", "RSA2048 is required"),
    ("MailDomain", put(("limits",), {"messagesPerHour": 5, "messagesPerDay": 5}), put(("limits",), {"messagesPerHour": 6, "messagesPerDay": 5}),
     "spec.limits.messagesPerHour", "exceeds messagesPerDay"),
    ("MailDomain", put(("limits",), {"recipientsPerHour": 5, "recipientsPerDay": 5}),
     put(("limits",), {"recipientsPerHour": 6, "recipientsPerDay": 5}), "spec.limits.recipientsPerHour", "exceeds recipientsPerDay"),
    ("MailDomain", put(("credentials", 0, "limits"), {"recipientsPerHour": 5, "recipientsPerDay": 5}),
     put(("credentials", 0, "limits"), {"recipientsPerHour": 6, "recipientsPerDay": 5}),
     "spec.credentials[0].limits.recipientsPerHour", "exceeds recipientsPerDay"),
    ("SendingPool", put(("tenantLimits",), {"recipientsPerHour": 5, "recipientsPerDay": 5}),
     put(("tenantLimits",), {"recipientsPerHour": 6, "recipientsPerDay": 5}), "spec.tenantLimits.recipientsPerHour", "exceeds recipientsPerDay"),
    ("MailDomain", put(("credentials", 0, "serviceAccounts"), [{"namespace": "a", "name": "b"}]), put(("credentials", 0, "secretRef"), None),
     "spec.credentials[0]", "serviceAccounts and clientCertificate is needed"),
    ("SendingPool", put(("retry", "backoff"), {"initial": "1s"}), put(("retry", "backoff"), {"initial": "0s"}),
     "spec.retry.backoff.initial", "1s or more"),
    ("SendingPool", put(("retry", "backoff"), {"initial": "4h"}), put(("retry", "backoff"), {"initial": "5h"}),
     "spec.retry.backoff.initial", "not be longer than max"),
    ("MailDomain", put(("dkim", "rotation"), {"interval": "169h"}), put(("dkim", "rotation"), {"interval": "23h", "overlap": "20h"}),
     "spec.dkim.rotation.interval", "interval must be 24h"),
    ("MailDomain", put(("dkim", "rotation"), {"overlap": "72h"}), put(("dkim", "rotation"), {"overlap": "71h"}),
     "spec.dkim.rotation.overlap", "overlap must be 72h"),
    ("MailDomain", put(("dkim", "rotation"), {"interval": "100h", "overlap": "99h"}),
     put(("dkim", "rotation"), {"interval": "100h", "overlap": "100h"}), "spec.dkim.rotation.overlap", "overlap must be shorter than interval"),
    ("MailDomain", put(("credentials", 0, "rotation"), {"interval": "2h", "overlap": "1h"}),
     put(("credentials", 0, "rotation"), {"interval": "0h", "overlap": "0h"}), "spec.credentials[0].rotation.interval", "interval must be 1h"),
    ("MailDomain", put(("credentials", 0, "rotation"), {"interval": "2h", "overlap": "1h"}),
     put(("credentials", 0, "rotation"), {"interval": "2h", "overlap": "2h"}), "spec.credentials[0].rotation.overlap", "shorter than its interval"),
    ("MailDomain", put(("credentials", 0, "allowedPriorities"), {"min": 1, "max": 1}),
     put(("credentials", 0, "allowedPriorities"), {"min": 2, "max": 1}), "spec.credentials[0].allowedPriorities", "min exceeds max"),
    ("SendingPool", put(("replyRules",), [{"name": "a", "class": "dns", "code": "5xx"}]),
     put(("replyRules",), [{"name": "a", "class": "dns"}]), "spec.replyRules[0]", "pattern is required"),
    ("MailDomain", put(("tls",), {"hostnames": ["smtp.a.example"], "issuerRef": {"name": "ca"}}),
     put(("tls",), {"hostnames": ["smtp.a.example"], "issuerRef": {"name": "ca"}, "secretRef": {"name": "x"}}), "spec.tls.issuerRef", "secretRef or"),
    ("SendingPool", put(("replicas",), 2), put(("replicas",), 3), "spec.replicas", "replicas is set by the autoscaler"),
    ("SendingPool", put(("domains", "namespaces"), {"from": "Selector", "selector": {"matchLabels": {"a": "b"}}}),
     put(("domains", "namespaces"), {"from": "Selector"}), "spec.domains.namespaces.selector", "selector belongs to"),
    ("SendingPool", put(("autoscaling",), {"minReplicas": 20}), put(("autoscaling",), {"minReplicas": 21}),
     "spec.autoscaling.minReplicas", "minReplicas exceeds maxReplicas"),
    ("SendingPool", put(("autoscaling",), {"provider": "KEDA", "minReplicas": 0}), put(("autoscaling",), {"provider": "HPA", "minReplicas": 0}),
     "spec.autoscaling.minReplicas", "possible with KEDA only"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "accepted", "refused", "field", "words"), RULES)
def test_each_rule_accepts_one_and_refuses_one(api: ApiServer, kind: str, accepted: Change, refused: Change, field: str, words: str) -> None:
    good, bad = copy.deepcopy(MINIMAL[kind]), copy.deepcopy(MINIMAL[kind])
    accepted(good)
    refused(bad)
    status, answer = create(api, kind, good)
    assert status == 201, answer
    status, answer = create(api, kind, bad)
    assert status == 422, answer
    causes = {cause["field"]: cause["message"] for cause in answer["details"]["causes"]}
    assert words in causes.get(field, ""), causes


@pytest.mark.parametrize(
    ("after", "field", "words"),
    [
        (put(("domainName",), "b.a.example"), "spec.domainName", "immutable"),
        (put(("dkim",), None), "spec.dkim", "cannot be removed"),
    ],
)
def test_each_rule_about_a_change_refuses_it(api: ApiServer, namespace: Callable[[str], str], after: Change, field: str, words: str) -> None:
    spec = {"domainName": "a.example", "poolRef": {"name": "main"}, "dkim": {}}
    path = f"{GROUP}/namespaces/{namespace('rules')}/maildomains"
    assert api.request("POST", path, document("MailDomain", spec))[0] == 201
    found = api.get(f"{path}/a")
    after(found["spec"])
    status, answer = api.request("PUT", f"{path}/a", found)
    assert status == 422, answer
    causes = {cause["field"]: cause["message"] for cause in answer["details"]["causes"]}
    assert words in causes.get(field, ""), causes


def test_every_rule_is_in_the_table() -> None:
    def rules(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [rule["message"] for rule in node.get("x-kubernetes-validations", [])]
            return own + [found for value in node.values() for found in rules(value)]
        return [found for value in node for found in rules(value)] if isinstance(node, list) else []

    messages = {message for kind in schema.KINDS for message in rules(schema.schema(kind))}
    tested = [words for _, _, _, _, words in RULES] + [
        "immutable",
        "cannot be removed",
        "the name must be a DNS label",
        "the name must have at most 63",
        "cannot change between",
    ]
    assert [message for message in messages if not any(words in message for words in tested)] == []


@pytest.mark.parametrize(("name", "status"), [("a-pool", 201), ("a.pool", 422), ("1pool", 422), ("a" * 41, 422)])
def test_the_name_of_a_pool_can_name_a_service(api: ApiServer, name: str, status: int) -> None:
    assert create(api, "SendingPool", MINIMAL["SendingPool"], name)[0] == status


@pytest.mark.parametrize(("name", "status"), [("a" * 63, 201), ("a" * 64, 422)])
def test_the_name_of_a_mail_domain_can_be_a_label(api: ApiServer, name: str, status: int) -> None:
    assert create(api, "MailDomain", MINIMAL["MailDomain"], name)[0] == status


def test_a_pool_cannot_change_its_kind_of_spool(api: ApiServer, namespace: Callable[[str], str]) -> None:
    path = f"{GROUP}/namespaces/{namespace('spool')}/sendingpools"
    assert api.request("POST", path, document("SendingPool", {}))[0] == 201
    found = api.get(f"{path}/a")
    found["spec"]["spool"] = {"secretRef": {"name": "db"}}
    status, answer = api.request("PUT", f"{path}/a", found)
    assert status == 422
    assert [cause["field"] for cause in answer["details"]["causes"]] == ["spec.spool"]


def test_a_pool_without_an_autoscaler_is_scaled_by_its_scale_subresource(api: ApiServer, namespace: Callable[[str], str]) -> None:
    path = f"{GROUP}/namespaces/{namespace('scale')}/sendingpools"
    assert api.request("POST", path, document("SendingPool", {"autoscaling": {"provider": "None"}}))[0] == 201
    status, answer = api.request("PATCH", f"{path}/a/scale", {"spec": {"replicas": 5}}, "application/merge-patch+json")
    assert status == 200, answer
    assert api.get(f"{path}/a")["spec"]["replicas"] == 5


def test_the_api_server_fills_in_the_same_defaults_as_one_machine(api: ApiServer) -> None:
    for kind, spec in MINIMAL.items():
        _, answer = create(api, kind, spec)
        assert answer["spec"] == schema.with_defaults(document(kind, spec), schema.schema(kind))["spec"]


def test_conditions_are_merged_by_type(api: ApiServer, namespace: Callable[[str], str]) -> None:
    path = f"{GROUP}/namespaces/{namespace('conditions')}/maildomains/a"
    api.apply(path, document("MailDomain", MINIMAL["MailDomain"]))
    for manager, kind in (("one", "Ready"), ("two", "DNSReady")):
        condition = {"type": kind, "status": "True", "reason": "Fine", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        body = {"apiVersion": schema.GROUP, "kind": "MailDomain", "metadata": {"name": "a"}, "status": {"conditions": [condition]}}
        api.apply(f"{path}/status", body, manager)
    assert {condition["type"] for condition in api.get(path)["status"]["conditions"]} == {"Ready", "DNSReady"}
