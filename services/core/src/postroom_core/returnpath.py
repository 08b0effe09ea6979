"""The form of return paths that name one recipient of one message (VERP): `reports-ID-RECIPIENT-PROOF@bounce.example.com`. Pure.

Ingress knows the form, so that it can tell such an address from others; only delivery has the key of the proof (postroom_delivery.verp). Local parts
come back in either case from hosts that do not know that case may matter, so everything here is compared in lower case. 63 octets of 64 at most.
"""

import re
from dataclasses import dataclass

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # as in message ids
_FORM = re.compile(rf"(?P<base>[a-z]+)-(?P<id>[{_ALPHABET}]{{26}})-(?P<recipient>[{_ALPHABET}]{{1,10}})-(?P<proof>[a-z2-7]{{16}})")


@dataclass(frozen=True, slots=True)
class ReturnPath:
    """`base` is the address of the MailDomain's return path, `recipient` the number of the spool's row, `proof` what only delivery can make."""

    base: str
    message_id: str
    recipient: int
    proof: str

    def __str__(self) -> str:
        local, _, domain = self.base.rpartition("@")
        return f"{local}-{self.message_id.lower()}-{_base32(self.recipient)}-{self.proof}@{domain}"


def parse(address: str) -> ReturnPath | None:
    """What an address of this form says; None for every other. Nothing is proven by that."""
    local, _, domain = address.lower().rpartition("@")
    found = _FORM.fullmatch(local)
    if found is None:
        return None
    number = 0
    for digit in found["recipient"]:
        number = number * 32 + _ALPHABET.index(digit)
    return ReturnPath(f"{found['base']}@{domain}", found["id"].upper(), number, found["proof"])


def _base32(number: int) -> str:
    digits = _ALPHABET[number % 32]
    while number := number // 32:
        digits = _ALPHABET[number % 32] + digits
    return digits
