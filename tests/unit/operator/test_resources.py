"""Resources from YAML: what is accepted, and that every fault names file, line and field."""

import pathlib
from typing import get_args

import pytest
import yaml

from postroom_cli import examples
from postroom_core.documents import Domain, Pool, ReplyRule, Reputation, SenderDomain, Thresholds, TlsPolicy, TlsRule, WebhookEvent
from postroom_core.replyrule import MOST_PATTERN, Action, Class
from postroom_operator import resources, schema
from postroom_operator.plan.compile import Observed, Plan, compile_resources
from postroom_operator.plan.durations import seconds

POOL = """\
apiVersion: mail.postroom.dev/v1alpha1
kind: SendingPool
metadata: {name: main}
spec: {}
"""
DOMAIN = """\
apiVersion: mail.postroom.dev/v1alpha1
kind: MailDomain
metadata: {name: d}
spec:
  domainName: d.example
  poolRef: {name: main}
"""


def plan(tmp_path: pathlib.Path, *documents: str) -> Plan:
    (tmp_path / "mail.yaml").write_text("---\n".join(documents))
    return compile_resources(resources.read(tmp_path / "mail.yaml"), Observed())


def test_the_example_of_init_is_valid(tmp_path: pathlib.Path) -> None:
    found = plan(tmp_path, examples.text("example.com"))
    assert not found.problems
    assert found.wanted_keys == [("example.com", "RSA2048", "s"), ("example.com", "Ed25519", "s")]
    assert found.wanted_secrets == [(("default", "example-com-app"), "example.com")]


def test_the_committed_example_is_the_one_of_init() -> None:
    root = pathlib.Path(__file__).parents[3]
    assert (root / "examples" / "mail.yaml").read_text() == examples.text("example.com")


@pytest.mark.parametrize(
    ("documents", "problem"),
    [
        ((POOL, DOMAIN.replace("domainName", "domainNam")), "mail.yaml:10: spec.domainNam: is not a field; there are: clients"),
        ((POOL, DOMAIN.replace("d.example", "D.Example")), "mail.yaml:10: spec.domainName: 'D.Example' does not match"),
        ((POOL, DOMAIN.replace("main}", "other}")), "mail.yaml:11: spec.poolRef: there is no SendingPool default/other"),
        ((POOL, DOMAIN, DOMAIN), "spec.domainName: d.example is already the domain of default/d"),
        ((POOL.replace("{}", "{retry: {maxAge: 5d}}"), DOMAIN), "mail.yaml:4: spec.retry.maxAge: '5d' does not match"),
        ((POOL, "kind: Frob\n"), "mail.yaml:6: kind: must be one of MailDomain, SendingPool, Secret"),
        ((POOL, "a: [b\n"), "not YAML"),
        (
            (POOL, DOMAIN + '  credentials: [{name: u, secretRef: {name: s}, allowedSenders: ["*@e.example"]}]\n'),
            "spec.credentials.0.allowedSenders: *@e.example is outside of d.example",
        ),
        ((POOL, DOMAIN + "  dkim: {importedKeys: [{selector: s, secretRef: {name: gone}}]}\n"), "no Secret gone with the key tls.key"),
        ((POOL, DOMAIN + '  clients: [{name: c, cidrs: [10.0.0.1/8], allowedSenders: ["*@d.example"]}]\n'), "spec.clients.0.cidrs: 10.0.0.1/8"),
        ((POOL, DOMAIN + "  limits: {messagesPerHour: 3, messagesPerDay: 2}\n"), "messagesPerHour exceeds messagesPerDay"),
        (
            (POOL, DOMAIN + '  credentials: [{name: u, secretRef: {name: ../x}, allowedSenders: ["*@d.example"]}]\n'),
            "spec.credentials.0.secretRef.name",
        ),
    ],
)
def test_a_fault_names_file_line_and_field(tmp_path: pathlib.Path, documents: tuple[str, ...], problem: str) -> None:
    problems = plan(tmp_path, *documents).problems
    assert any(problem in found for found in problems), problems


def test_a_bad_key_is_refused_without_showing_it(tmp_path: pathlib.Path) -> None:
    secret = "kind: Secret\nmetadata: {name: k}\nstringData: {tls.key: SECRETMATERIAL}\n"
    problems = plan(tmp_path, POOL, DOMAIN + "  dkim: {importedKeys: [{selector: s, secretRef: {name: k}}]}\n", secret).problems
    assert problems
    assert "SECRETMATERIAL" not in "".join(problems)


def test_a_domain_without_dkim_is_unsigned_and_said_so(tmp_path: pathlib.Path) -> None:
    found = plan(tmp_path, POOL, DOMAIN)
    assert not found.problems
    assert found.signer == []
    assert "not signed" in found.warnings[0]


def test_reply_rules_reach_the_pool_in_their_order(tmp_path: pathlib.Path) -> None:
    rules = "{replyRules: [{name: b, enhancedCode: 4.7.x|5.7.1, class: policy, action: retry}, {name: a, code: 4xx, class: other}]}"
    pool, sender = plan(tmp_path, POOL.replace("{}", rules), DOMAIN).delivery
    assert sender == SenderDomain(name="d.example", tenant="default", signed=False, pool="default/main")
    assert isinstance(pool, Pool)
    assert pool.reply_rules == (
        ReplyRule(name="b", enhanced_code="4.7.x|5.7.1", classification=Class.POLICY, action=Action.RETRY),
        ReplyRule(name="a", code="4xx", classification=Class.OTHER),
    )


def test_tls_rules_reach_the_pool_in_their_order_and_the_crd_knows_the_policies_of_the_code(tmp_path: pathlib.Path) -> None:
    rules = "{tls: [{name: bank, match: [Bank.Example], policy: Verify}, {name: rest, match: ['*'], policy: Encrypt}]}"
    pool, _ = plan(tmp_path, POOL.replace("{}", rules), DOMAIN).delivery
    assert isinstance(pool, Pool)
    assert pool.tls_rules == (
        TlsRule(name="bank", match=("bank.example",), policy="Verify"),
        TlsRule(name="rest", match=("*",), policy="Encrypt"),
    )
    properties = schema.schema("SendingPool")["properties"]["spec"]["properties"]["tls"]["items"]["properties"]
    assert properties["policy"]["enum"] == list(get_args(TlsPolicy))


def test_a_return_path_reaches_who_sends_and_who_receives(tmp_path: pathlib.Path) -> None:
    found = plan(tmp_path, POOL, DOMAIN + "  dns: {returnPath: {label: bounce}}\n")
    assert not found.problems
    senders = [document for document in found.delivery if isinstance(document, SenderDomain)]
    domains = [document for document in found.ingress if isinstance(document, Domain)]
    paths = [sender.return_path for sender in senders] + [found_domain.return_path for found_domain in domains]
    assert paths == ["reports@bounce.d.example"] * 2


def test_the_crd_knows_the_classes_and_actions_of_the_code() -> None:
    properties = schema.schema("SendingPool")["properties"]["spec"]["properties"]["replyRules"]["items"]["properties"]
    assert properties["class"]["enum"] == [one.value for one in Class if one is not Class.SUCCESS]
    assert properties["action"]["enum"] == [one.value for one in Action]
    assert properties["pattern"]["maxLength"] == MOST_PATTERN


def test_durations_are_those_of_go() -> None:
    assert [seconds(text) for text in ("1s", "90s", "5m", "1h30m", "120h")] == [1, 90, 300, 5400, 432_000]


@pytest.mark.parametrize("kind", schema.KINDS)
def test_every_field_of_a_crd_has_a_description_and_only_known_keywords(kind: str) -> None:
    known = {
        *("type", "description", "properties", "items", "required", "default", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum"),
        *("minItems", "maxItems", "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "format"),
        *("additionalProperties", "minProperties", "maxProperties"),
    }

    def walk(node: dict[str, object], path: str, *, item: bool) -> None:
        assert set(node) <= known, (path, set(node) - known)
        assert item or node.get("description") or path.endswith(".metadata"), path  # the API server admits nothing more about metadata
        properties, items = node.get("properties", {}), node.get("items")
        assert isinstance(properties, dict)
        for name, child in properties.items():
            walk(child, f"{path}.{name}", item=False)
        if isinstance(items, dict):
            walk(items, f"{path}[]", item=True)

    root = pathlib.Path(__file__).parents[3]
    file = next(path for path in (root / "crds").glob("*.yaml") if yaml.safe_load(path.read_text())["spec"]["names"]["kind"] == kind)
    walk(yaml.safe_load(file.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"], kind, item=False)


HOOK = "  webhooks: [{name: app, url: 'https://h.example/x', events: [Bounced], secretRef: {name: hook}}]\n"
HOOK_SECRET = "kind: Secret\nmetadata: {name: hook}\nstringData: {secret: whsec_a2tra2tra2tra2tra2tra2tra2tra2tr}\n"


def test_a_webhook_reaches_delivery_with_its_secrets(tmp_path: pathlib.Path) -> None:
    found = plan(tmp_path, POOL, DOMAIN + HOOK, HOOK_SECRET.replace("}", ", previousSecret: whsec_b29vb29vb29vb29vb29vb29vb29vb29v}"))
    assert not found.problems
    (sender,) = [document for document in found.delivery if isinstance(document, SenderDomain)]
    (hook,) = sender.webhooks
    assert (hook.name, hook.url, hook.events, [secret[:8] for secret in hook.secrets]) == (
        "app",
        "https://h.example/x",
        ("bounced",),
        ["whsec_a2", "whsec_b2"],
    )
    assert not any("whsec" in repr(document) for document in found.delivery + found.ingress)
    known = schema.schema("MailDomain")["properties"]["spec"]["properties"]["webhooks"]["items"]["properties"]["events"]
    assert [event.lower() for event in known["items"]["enum"]] == list(get_args(WebhookEvent))


@pytest.mark.parametrize(
    ("documents", "problem"),
    [
        ((POOL, DOMAIN + HOOK), "spec.webhooks.0.secretRef: no Secret hook with secret: whsec_"),
        ((POOL, DOMAIN + HOOK, HOOK_SECRET.replace("whsec_a2", "whsec_!2")), "spec.webhooks.0.secretRef: no Secret hook with secret: whsec_"),
        ((POOL, DOMAIN + HOOK.replace("h.example", "192.0.2.1"), HOOK_SECRET), "spec.webhooks.0.url: 'https://192.0.2.1/x' does not match"),
        ((POOL, DOMAIN + HOOK.replace("https", "http"), HOOK_SECRET), "spec.webhooks.0.url: 'http://h.example/x' does not match"),
        ((POOL, DOMAIN + HOOK.replace("h.example", "me:pw@h.example"), HOOK_SECRET), "does not match"),
    ],
)
def test_a_webhook_that_cannot_work_is_told_with_its_field(tmp_path: pathlib.Path, documents: tuple[str, ...], problem: str) -> None:
    problems = "\n".join(plan(tmp_path, *documents).problems)
    assert problem in problems
    assert "whsec_a2tra2" not in problems


def test_the_defaults_of_the_spam_control_are_those_of_the_crd_and_given_thresholds_replace_a_signals(tmp_path: pathlib.Path) -> None:
    (pool,) = [document for document in plan(tmp_path, POOL, DOMAIN).delivery if isinstance(document, Pool)]
    assert pool.reputation == Reputation()
    given = "{reputation: {enforcement: Observe, minimumRecipients: 7, complaintPercent: {alert: 0.2}}}"
    (pool,) = [document for document in plan(tmp_path, POOL.replace("{}", given), DOMAIN).delivery if isinstance(document, Pool)]
    assert pool.reputation == Reputation(enforcement="Observe", minimum_recipients=7, complaints=Thresholds(alert=0.2))
    wrong = "{reputation: {spamPercent: {slow: 5, pause: 4}}}"
    assert "spec.reputation.spamPercent: alert must not exceed slow" in "".join(plan(tmp_path, POOL.replace("{}", wrong), DOMAIN).problems)
