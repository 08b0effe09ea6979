"""TLSA records against certificate chains (RFC 7672): a table over usages, selectors and matching types, with real certificates."""

import datetime
import hashlib
from dataclasses import dataclass

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from postroom_delivery.dane import Tlsa, mismatch, presented_names, usable

NOW = 1_767_571_200_000
AT = datetime.datetime.fromtimestamp(NOW / 1000, datetime.UTC)
DAY = datetime.timedelta(days=1)


@dataclass
class Issuer:
    """A certificate and what it can sign with."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def issue(
    name: str, by: Issuer | None = None, *, ca: bool = False, names: tuple[str, ...] = (), from_: datetime.datetime = AT - DAY, days: int = 30
) -> Issuer:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(from_)
        .not_valid_after(from_ + days * DAY)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
    return Issuer(builder.sign(by.key if by else key, hashes.SHA256()), key)


def tlsa(usage: int, selector: int, matching: int, of: Issuer) -> Tlsa:
    data = of.der if selector == 0 else of.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Tlsa(usage, selector, matching, {0: data, 1: hashlib.sha256(data).digest(), 2: hashlib.sha512(data).digest()}[matching])


ROOT = issue("root", ca=True)
MIDDLE = issue("middle", ROOT, ca=True)
LEAF = issue("mx.test", MIDDLE, names=("mx.test",))
CHAIN = [LEAF.der, MIDDLE.der, ROOT.der]
ALL = [(selector, matching) for selector in (0, 1) for matching in (0, 1, 2)]


@pytest.mark.parametrize(("selector", "matching"), ALL)
def test_dane_ee_matches_the_leaf_alone(selector: int, matching: int) -> None:
    assert mismatch([LEAF.der], [tlsa(3, selector, matching, LEAF)], ["mx.test"], NOW) == ""
    assert mismatch(CHAIN, [tlsa(3, selector, matching, MIDDLE)], ["mx.test"], NOW) != ""


def test_dane_ee_ignores_names_and_dates() -> None:
    old = issue("else.test", from_=AT - 900 * DAY)
    assert mismatch([old.der], [tlsa(3, 1, 1, old)], ["mx.test"], NOW) == ""


@pytest.mark.parametrize("anchor", [MIDDLE, ROOT])
@pytest.mark.parametrize(("selector", "matching"), ALL)
def test_dane_ta_matches_a_ca_that_the_server_presents(selector: int, matching: int, anchor: Issuer) -> None:
    assert mismatch(CHAIN, [tlsa(2, selector, matching, anchor)], ["mx.test"], NOW) == ""


def test_dane_ta_needs_the_name_the_dates_the_signatures_and_a_ca() -> None:
    record = tlsa(2, 0, 1, ROOT)
    assert "not for other.test" in mismatch(CHAIN, [record], ["other.test"], NOW)
    assert mismatch(CHAIN, [record], ["other.test", "mx.test"], NOW) == ""
    assert "expired" in mismatch(CHAIN, [record], ["mx.test"], NOW + 60 * 86_400_000)
    stranger = issue("mx.test", names=("mx.test",))
    assert "no valid chain" in mismatch([stranger.der, MIDDLE.der, ROOT.der], [record], ["mx.test"], NOW)
    no_ca = issue("no ca", ROOT)
    below = issue("mx.test", no_ca, names=("mx.test",))
    assert "no valid chain" in mismatch([below.der, no_ca.der, ROOT.der], [record], ["mx.test"], NOW)
    assert "matches no TLSA" in mismatch([LEAF.der, MIDDLE.der], [record], ["mx.test"], NOW)  # the CA was not presented


def test_dane_ta_never_takes_the_leaf_for_its_own_ca() -> None:
    own = issue("mx.test", ca=True, names=("mx.test",))
    assert mismatch([own.der], [tlsa(2, 0, 1, own)], ["mx.test"], NOW) != ""


def test_a_whole_ca_in_the_record_need_not_be_presented() -> None:
    assert mismatch([LEAF.der, MIDDLE.der], [tlsa(2, 0, 0, ROOT)], ["mx.test"], NOW) == ""
    assert mismatch([LEAF.der], [tlsa(2, 0, 0, MIDDLE)], ["mx.test"], NOW) == ""
    assert mismatch([LEAF.der], [Tlsa(2, 0, 0, b"no certificate")], ["mx.test"], NOW) != ""


def test_a_wildcard_in_the_certificate_stands_for_one_label() -> None:
    leaf = issue("x", ROOT, names=("*.test", "*"))
    chain, record = [leaf.der, ROOT.der], [tlsa(2, 0, 1, ROOT)]
    assert mismatch(chain, record, ["mx.example"], NOW) != ""
    wide = issue("x", ROOT, names=("*.mail.test",))
    assert mismatch([wide.der, ROOT.der], record, ["a.mail.test"], NOW) == ""
    assert mismatch([wide.der, ROOT.der], record, ["a.b.mail.test"], NOW) != ""
    assert mismatch([wide.der, ROOT.der], record, ["mail.test"], NOW) != ""
    assert presented_names(issue("Only.Common.test").der) == ["only.common.test"]


@pytest.mark.parametrize(
    ("record", "counts"),
    [
        (tlsa(3, 1, 1, LEAF), True),
        (tlsa(2, 0, 2, ROOT), True),
        (tlsa(0, 0, 1, ROOT), False),
        (tlsa(1, 1, 1, LEAF), False),
        (Tlsa(3, 2, 1, b"x" * 32), False),
        (Tlsa(3, 1, 3, b"x" * 32), False),
        (Tlsa(3, 1, 1, b"x" * 31), False),
        (Tlsa(3, 1, 2, b"x" * 32), False),
        (Tlsa(3, 0, 0, b""), False),
    ],
)
def test_records_that_cannot_authenticate_a_mail_host_do_not_count(record: Tlsa, counts: bool) -> None:
    assert bool(usable([record])) is counts


def test_one_matching_record_among_others_is_enough_during_a_key_change() -> None:
    assert mismatch(CHAIN, [tlsa(3, 1, 1, ROOT), tlsa(2, 1, 1, issue("x")), tlsa(3, 1, 1, LEAF)], ["mx.test"], NOW) == ""
    assert mismatch([], [tlsa(3, 1, 1, LEAF)], ["mx.test"], NOW) != ""


@given(st.lists(st.binary(max_size=200), max_size=4), st.integers(0, 3), st.integers(0, 1), st.binary(min_size=32, max_size=32))
def test_whatever_a_server_presents_is_a_mismatch_and_no_exception(chain: list[bytes], usage: int, selector: int, data: bytes) -> None:
    """Invariant: octets that are no certificate match no record of a digest, and raise nothing."""
    assert mismatch(chain, [Tlsa(usage, selector, 1, data)], ["mx.test"], NOW) != ""
    assert mismatch([LEAF.der, *chain], [tlsa(2, 0, 0, ROOT)], ["mx.test"], NOW) != ""
