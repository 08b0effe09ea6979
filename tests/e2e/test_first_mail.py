"""The way of a newcomer: install the chart, apply a pool and a domain, send a message; everything on the defaults, SQLite on a volume."""

import json
import secrets
import smtplib
import time

import dkim
import pytest
from e2e.installation import ABROAD, DOMAIN, Installation, Load
from e2e.world import READY, get, kubectl, message, session, until, unverified

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]


def test_the_chart_is_ready_within_its_time(postroom: Installation) -> None:
    assert postroom.measured["helm install to ready"] < READY


def test_every_condition_is_true_and_the_listing_says_so(postroom: Installation) -> None:
    conditions = {c["type"]: (c["status"], c["reason"]) for c in get("maildomain", DOMAIN, postroom.namespace)["status"]["conditions"]}
    assert conditions["Ready"] == ("True", "AllReady"), conditions
    assert conditions["DNSReady"][0] == "True"
    assert postroom.condition("sendingpool", "main")["status"] == "True"
    assert "True" in kubectl("-n", postroom.namespace, "get", "md,sp")


def test_a_message_arrives_signed_and_the_signature_holds_against_the_zone(postroom: Installation) -> None:
    marker = secrets.token_hex(6)
    with session(postroom.address, postroom.login()) as client:
        client.sendmail(f"a@{DOMAIN}", [f"b@{ABROAD}"], message(f"a@{DOMAIN}", f"b@{ABROAD}", marker))
    [received] = until("the message", lambda: postroom.mailbox.holding(marker), READY)
    signatures = received.content.count(b"\r\nDKIM-Signature:") + received.content.startswith(b"DKIM-Signature:")
    assert signatures == 2
    for index in range(signatures):
        assert dkim.DKIM(received.content).verify(idx=index, dnsfunc=postroom.bind.txt)


def test_implicit_tls_takes_a_message_too(postroom: Installation) -> None:
    marker = secrets.token_hex(6)
    with smtplib.SMTP_SSL(postroom.address, 465, timeout=30, context=unverified()) as client:
        client.login(*postroom.login())
        client.sendmail(f"a@{DOMAIN}", [f"b@{ABROAD}"], message(f"a@{DOMAIN}", f"b@{ABROAD}", marker))
    until("the message", lambda: postroom.mailbox.holding(marker), READY)


def test_kubectl_postroom_tells_the_story(postroom: Installation) -> None:
    with session(postroom.address, postroom.login()) as client:
        code, reply = client.docmd("MAIL", f"FROM:<a@{DOMAIN}>")
        client.docmd("RCPT", f"TO:<b@{ABROAD}>")
        code, reply = client.data(message(f"a@{DOMAIN}", f"b@{ABROAD}", "story").encode())
    assert code == 250, reply
    message_id = reply.decode().rpartition(" ")[2]
    until("the delivery", lambda: "was delivered" in postroom.postroom("explain", message_id), READY)
    assert json.loads(postroom.postroom("stats", "--json"))["recipients"]["delivered"] >= 1
    assert f"_domainkey.{DOMAIN}" in postroom.postroom("dns", DOMAIN)


def test_no_pod_was_restarted_and_none_is_more_than_it_may(postroom: Installation) -> None:
    pods = [pod for component in ("operator", "ingress", "signer", "delivery") for pod in postroom.pods(component)]
    assert len(pods) == 7
    restarts = {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods}
    assert set(restarts.values()) == {0}, restarts
    # The namespace can be restricted: the API server would name every pod that does not fit.
    words = kubectl("label", "--dry-run=server", "--overwrite", "namespace", postroom.namespace, "pod-security.kubernetes.io/enforce=restricted")
    assert "violate" not in words


@pytest.mark.parametrize(
    ("account", "verb", "namespace", "allowed"),
    [
        ("ingress", "list", "", True),
        ("ingress", "list", "-keys", False),
        ("ingress", "get", "", False),
        ("ingress", "create", "", False),
        ("delivery", "list", "-keys", False),
        ("signer", "list", "-keys", True),
        ("signer", "list", "", False),
        ("operator", "create", "-keys", True),
        ("operator", "list", "default", False),
    ],
)
def test_secrets_are_kept_from_whoever_does_not_need_them(postroom: Installation, account: str, verb: str, namespace: str, allowed: bool) -> None:
    place = namespace if namespace == "default" else f"{postroom.namespace}{namespace}"
    who = f"--as=system:serviceaccount:{postroom.namespace}:postroom-{account}"
    assert kubectl("auth", "can-i", verb, "secrets", "-n", place, who, check=False).strip() == ("yes" if allowed else "no")


def test_what_the_chart_renders_is_valid_for_this_api_server(postroom: Installation) -> None:
    manifest = postroom.helm("get", "manifest", "postroom")
    kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=manifest)


def test_a_new_signer_pod_gets_work_within_ten_seconds_and_a_vanished_one_fails_no_message(postroom: Installation) -> None:
    def signed_by(pod: str) -> float:
        text = kubectl("get", "--raw", f"/api/v1/namespaces/{postroom.namespace}/pods/{pod}:2580/proxy/metrics")
        return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("postroom_signer_requests_total"))

    names = {pod["metadata"]["name"] for pod in postroom.pods("signer")}
    with Load(postroom, rate=10, threads=2) as load:
        kubectl("-n", postroom.namespace, "scale", "deployment", "postroom-signer", "--replicas=3")
        until("a third signer", lambda: len(postroom.pods("signer")) == 3 and postroom.ready("signer"), READY)
        began = time.monotonic()
        [new] = {pod["metadata"]["name"] for pod in postroom.pods("signer")} - names
        until("work for the new signer", lambda: signed_by(new) > 0, 12)
        postroom.measured["a new signer's first work"] = round(time.monotonic() - began, 1)
        kubectl("-n", postroom.namespace, "delete", "pod", new, "--force", "--grace-period=0")
        time.sleep(3)
    kubectl("-n", postroom.namespace, "scale", "deployment", "postroom-signer", "--replicas=2")
    assert load.accepted
    until("all that was accepted", lambda: not load.missing(), READY)
    assert load.retried == 0, "no client saw a 4xx"
