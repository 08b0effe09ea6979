"""A published DKIM key against the one that signs."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from postroom_insight.keys import OwnKey, fault


def public(bits: int = 2048) -> str:
    key = rsa.generate_private_key(65537, bits).public_key()
    return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


OURS = public()
KEY = OwnKey("s1", "RSA2048", OURS, f"v=DKIM1; k=rsa; p={OURS}")


@pytest.mark.parametrize("text", [KEY.record, f"p={OURS}", f"v=DKIM1; k=rsa; s=email:*; h=sha256; p={OURS[:90]} {OURS[90:]};"])
def test_our_key_is_recognised_however_it_is_written(text: str) -> None:
    assert fault((text,), KEY) == ""
    assert fault(("unrelated", text), KEY) == ""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((), "no DKIM record"),
        (("unrelated",), "among 1 TXT"),
        ((KEY.record, KEY.record), "2 DKIM records"),
        (("v=DKIM1; p=",), "revoked"),
        ((f"v=DKIM1; k=ed25519; p={OURS}",), "k=ed25519"),
        ((f"v=DKIM1; h=sha1; p={OURS}",), "sha1"),
        ((f"v=DKIM1; s=tlsrpt; p={OURS}",), "does not allow mail"),
        ((f"v=DKIM1; t=y; p={OURS}",), "only tests"),
        ((f"v=DKIM2; p={OURS}",), "DKIM2"),
        ((f"v=DKIM1; p={OURS[:240]}",), "cut short"),
        ((f"v=DKIM1; p={public(1024)}",), "another key than ours (RSA of 1024 bits)"),
        (("v=DKIM1; p=!!!",), "another key than ours"),
        ((f"v=DKIM1; p={OURS}; p={OURS}",), "cannot be read"),
    ],
)
def test_every_other_record_is_told_apart(values: tuple[str, ...], words: str) -> None:
    assert words in fault(values, KEY)
