"""Submission by HTTP through the real processes: JSON, raw, batches, repeats, refusals; what arrives at the sink, and what is told of it."""

from __future__ import annotations

import base64
import email
import email.policy
import json
import time
import urllib.error
import urllib.request
from email.message import EmailMessage
from typing import Any, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi import checks

from integration.clients.postroom import PASSWORD, SENDER, USERNAME, Postroom, content, new_recipient

BASIC = "Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()


def ask(
    postroom: Postroom, path: str, body: Any = None, *, kind: str = "application/json", authorization: str = BASIC, **headers: str
) -> tuple[int, Any, Any]:
    """Status, JSON and header fields of the answer."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{postroom.machine.ports['http']}{path}", data)
    fields = {"Content-Type": kind, "Authorization": authorization, **{name.replace("_", "-"): value for name, value in headers.items()}}
    for name, value in fields.items():
        if value:
            request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=50) as answer:
            return answer.status, json.load(answer), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), error.headers


def arrival(postroom: Postroom, recipient: str) -> EmailMessage:
    found = postroom.machine.world.wait_for(lambda messages: any(recipient in message.recipients for message in messages))
    (message,) = [message for message in found if recipient in message.recipients]
    assert message.content.count(b"DKIM-Signature:") == 2
    return email.message_from_bytes(message.content, policy=email.policy.default)


def test_json_becomes_a_signed_message_with_everything_in_it(postroom: Postroom) -> None:
    recipient, hidden = new_recipient(), new_recipient()
    status, answer, _ = ask(
        postroom,
        "/v1/messages",
        {
            **{"from": {"address": SENDER, "name": "Größe, A."}, "to": [{"address": recipient}], "bcc": [{"address": hidden}], "subject": "Grüße 🌍"},
            **{"text": "héllo\n.dot\n", "html": '<p>héllo <img src="cid:pic"></p>', "headers": {"List-Unsubscribe": "<https://d.example/u>"}},
            "attachments": [
                {"filename": "ä.pdf", "contentType": "application/pdf", "content": base64.b64encode(b"x" * 200_000).decode()},
                {"filename": "p.png", "contentType": "image/png", "content": base64.b64encode(b"png").decode(), "contentId": "pic"},
            ],
        },
    )
    assert status == 202, answer
    message = arrival(postroom, recipient)
    assert (message["From"].addresses[0].display_name, message["Subject"], message["Bcc"]) == ("Größe, A.", "Grüße 🌍", None)
    assert message["List-Unsubscribe"] == "<https://d.example/u>"
    assert answer["id"] in message["Received"] and " with HTTP" in message["Received"]
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None and html is not None
    assert text.get_content().splitlines() == ["héllo", ".dot"]
    assert [part.get_filename() for part in message.iter_attachments()] == ["ä.pdf"]
    assert len(next(message.iter_attachments()).get_content()) == 200_000
    arrival(postroom, hidden)

    end = time.monotonic() + 20
    while (shown := ask(postroom, f"/v1/messages/{answer['id']}"))[1].get("recipients", [{}])[0].get("state") != "delivered":
        assert time.monotonic() < end, shown
        time.sleep(0.1)  # the sink has it before delivery has written down that it has
    assert {entry["address"] for entry in shown[1]["recipients"]} == {recipient, hidden}
    assert shown[1]["reversePath"] == SENDER


def test_a_raw_message_keeps_its_bytes(postroom: Postroom) -> None:
    recipient = new_recipient()
    status, answer, _ = ask(postroom, f"/v1/messages?from={SENDER}&to={recipient}", content(recipient), kind="message/rfc822")
    assert status == 202, answer
    found = postroom.machine.world.wait_for(lambda messages: any(recipient in message.recipients for message in messages))
    (message,) = [message for message in found if recipient in message.recipients]
    assert message.content.endswith(content(recipient).partition(b"MIME-Version")[2])


def test_a_batch_tells_for_each_recipient_what_became_of_it(postroom: Postroom) -> None:
    recipients = [new_recipient() for _ in range(5)]
    body = {"message": {"from": {"address": SENDER}, "subject": "x", "text": "hello"}, "recipients": [{"address": r} for r in recipients]}
    status, answer, _ = ask(postroom, "/v1/messages/batch", body)
    assert status == 200, answer
    assert [result["recipient"] for result in answer["results"]] == recipients
    assert len({result["id"] for result in answer["results"]}) == 5
    for recipient in recipients:
        assert [address.addr_spec for address in arrival(postroom, recipient)["To"].addresses] == [recipient]
    denied = {**body, "message": {**body["message"], "from": {"address": "a@other.example"}}}  # type: ignore[dict-item]
    _, answer, _ = ask(postroom, "/v1/messages/batch", denied)
    assert {result["problem"]["code"] for result in answer["results"]} == {"550 5.7.1"}


@pytest.mark.parametrize("raw", [False, True])
def test_the_same_key_is_the_same_message_and_another_message_with_it_is_refused(postroom: Postroom, raw: bool) -> None:
    recipient, key = new_recipient(), f"order-{time.time_ns()}"

    def send(subject: str) -> tuple[int, Any, Any]:
        if raw:
            path = f"/v1/messages?from={SENDER}&to={recipient}"
            return ask(postroom, path, content(recipient, subject), kind="message/rfc822", Idempotency_Key=key)
        body = {"from": {"address": SENDER}, "to": [{"address": recipient}], "subject": subject, "text": "a", "html": "<p>a</p>"}
        return ask(postroom, "/v1/messages", body, Idempotency_Key=key)

    first, again, other = send("x"), send("x"), send("y")
    assert first[0] == again[0] == 202, (first, again)
    assert first[1]["id"] == again[1]["id"]
    assert (other[0], other[1]["detail"]) == (422, "The idempotency key has been used for another message")
    assert arrival(postroom, recipient)["Subject"] == "x"
    fresh = new_recipient()
    assert ask(postroom, f"/v1/messages?from={SENDER}&to={fresh}", content(fresh), kind="message/rfc822")[0] == 202
    arrival(postroom, fresh)
    assert sum(recipient in message.recipients for message in postroom.machine.world.sink.messages) == 1


GOOD = {"from": {"address": SENDER}, "to": [{"address": "b@x.example"}], "text": "x"}
REFUSED: tuple[tuple[str, Any, int], ...] = (
    ("a sender that is not ours", {**GOOD, "from": {"address": "a@other.example"}}, 403),
    ("a reverse-path that is not ours", {**GOOD, "reversePath": {"address": "a@other.example"}}, 403),
    ("no recipient", {**GOOD, "to": []}, 422),
    ("no text", {**GOOD, "text": None}, 422),
    ("an unknown field", {**GOOD, "txt": "x"}, 422),
    ("A7: a line break in the subject", {**GOOD, "subject": "x\r\nBcc: c@x.example"}, 422),
    ("A7: a line break in a header", {**GOOD, "headers": {"X-A": "x\nBcc: c@x.example"}}, 422),
    ("A7: a header name with a colon", {**GOOD, "headers": {"X-A: b\r\nBcc": "x"}}, 422),
    ("A7: a line break in an address", {**GOOD, "to": [{"address": "b@x.example\r\nRCPT TO:<c@x.example>"}]}, 422),
    ("A7: a line break in a name", {**GOOD, "from": {"address": SENDER, "name": "x\r\nBcc: c@x.example"}}, 422),
    ("A6: an encoded word as an address", {**GOOD, "to": [{"address": "=?utf-8?q?a=40x?=@x.example"}]}, 422),
    ("A14: a header that is ours", {**GOOD, "headers": {"DKIM-Signature": "x"}}, 422),
    ("an attachment that is no base64", {**GOOD, "attachments": [{"filename": "x", "content": "***"}]}, 422),
    ("no JSON", b"{", 422),
)


@pytest.mark.parametrize(("body", "status"), [pytest.param(body, status, id=name) for name, body, status in REFUSED])
def test_what_is_wrong_is_a_problem_and_nothing_is_sent(postroom: Postroom, body: Any, status: int) -> None:
    found, answer, headers = ask(postroom, "/v1/messages", body)
    assert (found, answer["status"]) == (status, status), answer
    assert headers["Content-Type"] == "application/problem+json"
    assert answer["detail"]


@pytest.mark.parametrize("authorization", ["", "Basic ???", "Basic " + base64.b64encode(b"u:wrong").decode(), "Bearer x.y.z", "Digest x"])
def test_who_is_not_known_is_401(postroom: Postroom, authorization: str) -> None:
    status, answer, headers = ask(postroom, "/v1/messages", GOOD, authorization=authorization)
    assert (status, answer["code"]) == (401, "535 5.7.8")
    assert headers["WWW-Authenticate"].startswith("Basic ")


def test_a_bearer_token_may_be_user_name_and_password(postroom: Postroom) -> None:
    assert ask(postroom, "/v1/messages/00000000000000000000000000", authorization=BASIC.replace("Basic", "Bearer"))[0] == 404


def test_other_types_and_unknown_messages_are_told_apart(postroom: Postroom) -> None:
    assert ask(postroom, "/v1/messages", b"x", kind="text/plain")[0] == 415
    assert ask(postroom, "/v1/messages/nothing")[0] == 404
    assert ask(postroom, "/v1/messages/batch", {"message": {}, "recipients": []})[0] == 422


def test_the_api_describes_itself(postroom: Postroom) -> None:
    status, document, _ = ask(postroom, "/v1/openapi.json", authorization="")
    assert status == 200
    assert set(document["paths"]) == {"/v1/messages", "/v1/messages/batch", "/v1/messages/{message_id}"}
    schema = document["paths"]["/v1/messages"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"from", "to", "attachments"} <= set(schema["properties"])


def test_whatever_is_sent_is_answered_as_the_description_says(postroom: Postroom) -> None:
    described = schemathesis.openapi.from_url(f"http://127.0.0.1:{postroom.machine.ports['http']}/v1/openapi.json")
    tried = []
    for found in described.get_all_operations():
        operation: Any = cast(Any, found).ok()

        @given(case=operation.as_strategy())
        @settings(max_examples=20, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
        def check(case: Any) -> None:
            response = case.call(headers={"Authorization": BASIC})
            assert response.status_code < 500, response.text
            case.validate_response(response, checks=[checks.status_code_conformance, checks.response_schema_conformance])

        check()
        tried.append(operation.label)
    assert len(tried) == 3
