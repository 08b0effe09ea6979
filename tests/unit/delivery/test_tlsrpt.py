"""Reports about TLS: the record that asks, the document, the message."""

import base64
import email
import email.policy
import gzip
import json
from typing import Any

import jsonschema
import pytest

from postroom_delivery import tlsrpt
from postroom_delivery.spool.tls_tally import TlsCount, TlsSession

REPORTER = tlsrpt.Reporter("tls@d.example")
DAY = 20_000
_NEGOTIATION = ("starttls-not-supported", "certificate-host-mismatch", "certificate-expired", "certificate-not-trusted", "validation-failure")
_POLICIES = ("tlsa-invalid", "dnssec-invalid", "dane-required", "sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid")
RESULTS = [*_NEGOTIATION, *_POLICIES]
_TEXT, _COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}
_TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}


def closed(required: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": required | more, "additionalProperties": False}


def many(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}


# RFC 8460 section 4.4 in words of JSON Schema.
DETAIL = closed(
    {"result-type": {"enum": RESULTS}, "failed-session-count": _COUNT | {"minimum": 1}},
    **{"sending-mta-ip": _TEXT, "receiving-mx-hostname": _TEXT, "receiving-mx-helo": _TEXT, "receiving-ip": _TEXT},
    **{"additional-information": _TEXT, "failure-reason-code": _TEXT},
)
POLICY = closed(
    {"policy-type": {"enum": ["tlsa", "sts", "no-policy-found"]}, "policy-domain": _TEXT}, **{"policy-string": many(_TEXT), "mx-host": many(_TEXT)}
)
SUMMARY = closed({"total-successful-session-count": _COUNT, "total-failure-session-count": _COUNT})
SCHEMA = closed(
    {
        "organization-name": _TEXT,
        "date-range": closed({"start-datetime": _TIME, "end-datetime": _TIME}),
        "contact-info": _TEXT,
        "report-id": _TEXT,
        "policies": many(closed({"policy": POLICY, "summary": SUMMARY}, **{"failure-details": many(DETAIL)})),
    }
)

STS = "sts\nversion: STSv1\nmode: enforce\nmx: mx.test\nmx: *.x.example\nmax_age: 86400"


def counts() -> list[TlsCount]:
    failures = [TlsCount(TlsSession("x.example", STS, result, "mx.test", "192.0.2.1", "why"), n) for n, result in enumerate(RESULTS, 1)]
    return [TlsCount(TlsSession("x.example", STS), 7), *failures, TlsCount(TlsSession("x.example", "no-policy-found"), 2)]


def document() -> dict[str, Any]:
    return tlsrpt.report(DAY, counts(), REPORTER, "R1")


def test_a_report_with_every_type_of_failure_is_what_the_standard_describes() -> None:
    made = document()
    jsonschema.validate(made, SCHEMA)
    sts, none = made["policies"]
    assert made["date-range"] == {"start-datetime": "2024-10-04T00:00:00Z", "end-datetime": "2024-10-04T23:59:59Z"}
    assert sts["policy"]["mx-host"] == ["mx.test", "*.x.example"]
    assert sts["policy"]["policy-string"][:2] == ["version: STSv1", "mode: enforce"]
    assert sts["summary"] == {"total-successful-session-count": 7, "total-failure-session-count": sum(range(1, 12))}
    assert [(one["result-type"], one["failed-session-count"]) for one in sts["failure-details"]] == [(r, n) for n, r in enumerate(RESULTS, 1)]
    assert none == {
        "policy": {"policy-type": "no-policy-found", "policy-domain": "x.example"},
        "summary": {"total-successful-session-count": 2, "total-failure-session-count": 0},
    }


def test_the_message_has_the_fields_and_parts_of_the_standard() -> None:
    headers, body = tlsrpt.mail(document(), "x.example", DAY, REPORTER, "rua@x.example", 0)
    assert max(map(len, (headers + b"\r\n" + body).split(b"\r\n"))) < 998
    message = email.message_from_bytes(headers + b"\r\n" + body, policy=email.policy.default)
    assert (message["TLS-Report-Domain"], message["TLS-Report-Submitter"]) == ("x.example", "d.example")
    assert message["Subject"] == "Report Domain: x.example Submitter: d.example Report-ID: <R1@d.example>"
    assert (message.get_content_type(), message.get_param("report-type")) == ("multipart/report", "tlsrpt")
    text, attached = message.iter_parts()
    assert text.get_content_type() == "text/plain"
    assert attached.get_content_type() == "application/tlsrpt+gzip"
    assert attached.get_filename() == "d.example!x.example!1728000000!1728086399.json.gz"
    assert json.loads(gzip.decompress(base64.b64decode(str(attached.get_payload())))) == document()


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["v=TLSRPTv1; rua=mailto:a@x.example"], ["mailto:a@x.example"]),
        (["other", "v=TLSRPTv1;rua=https://r.example/v1 , mailto:a@x.example;ext=1"], ["https://r.example/v1", "mailto:a@x.example"]),
        (["v=TLSRPTv1; rua=mailto:a@x.example", "v=TLSRPTv1; rua=mailto:b@x.example"], []),
        (["v=TLSRPTv1; rua=http://x.example/,ftp://x,mailto:a b@x.example,mailto:a%0d%0ab@x.example,mailto:a@[127.0.0.1]"], []),
        (["v=TLSRPTv1"], []),
        (["v=TLSRPTv1; rua=" + ",".join(f"mailto:{n}@x.example" for n in range(9))], [f"mailto:{n}@x.example" for n in range(5)]),
        ([], []),
    ],
)
def test_the_record_says_who_wants_reports(texts: list[str], found: list[str]) -> None:
    assert tlsrpt.addresses(texts) == found
