"""What a message needs of the peer that takes it, and what follows when the peer cannot: the half of an attempt that needs no connection. Pure.

Nothing is converted on the way out, because that would break the signatures (P6): a message that the peer cannot take as it is comes back to its
sender with the reason. A need is one of the content or of an address, never of what the client happened to say: a plain ASCII message that
came with SMTPUTF8 goes anywhere (R6531). It never looks at a policy of transport security: see postroom_delivery.policy.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from postroom_delivery.classify import Class
from postroom_delivery.dialogue import Extensions, is_clean
from postroom_delivery.outcome import Bounced, Deferred, Delivered, Outcome, never
from postroom_delivery.spool.model import Claim, ClaimedMessage

# RFC 2852 section 4: nine digits.
MOST_SECONDS = 999_999_999
_TOO_MANY = re.compile(r"too many (recipients|rcpt)", re.IGNORECASE)


def size(message: ClaimedMessage) -> int:
    """Octets as RFC 1870 counts them: line ends included, dots not stuffed."""
    return len(message.headers) + 2 + message.body_size


def wishes(message: ClaimedMessage, extensions: Extensions, now: int) -> tuple[str, ...]:
    """Parameters of MAIL for what the client asked of every hop and this peer understands: BY (RFC 2852), MT-PRIORITY (RFC 6710).

    A later release (RFC 4865) is none of them: the message leaves us only when its time has come.
    """
    options, found = message.options, []
    if options.deliver_by and "DELIVERBY" in extensions:
        seconds = (options.deliver_by - now) // 1000
        mode = "R" if options.deliver_by_return else "N"
        found.append(f"BY={max(1, seconds) if options.deliver_by_return else max(-MOST_SECONDS, seconds)};{mode}")
    if options.priority and "MT-PRIORITY" in extensions:
        found.append(f"MT-PRIORITY={options.priority}")
    return tuple(found)


def tunnelled(message: ClaimedMessage, extensions: Extensions) -> ClaimedMessage:
    """The message with its priority in a header field where the peer knows no MT-PRIORITY, so that a later hop may know it (RFC 6758)."""
    if not message.options.priority or "MT-PRIORITY" in extensions:
        return message
    return replace(message, headers=f"MT-Priority: {message.options.priority}\r\n".encode() + message.headers)


def utf8(message: ClaimedMessage, claims: Sequence[Claim]) -> bool:
    """Whether a transaction with these recipients needs SMTPUTF8: an address or the header block has characters outside of ASCII (RFC 6531, 6532)."""
    return _header_is_utf8(message) or not message.reverse_path.isascii() or not all(claim.address.isascii() for claim in claims)


def _header_is_utf8(message: ClaimedMessage) -> bool:
    # 8-bit octets in the header of a message that came without SMTPUTF8 are no UTF-8 header: they are 8-bit content, which needs 8BITMIME.
    return message.options.smtputf8 and not message.headers.isascii()


def refusal(message: ClaimedMessage, extensions: Extensions, host: str) -> Bounced | None:
    """Why the peer can take the message for nobody; None when it can."""
    if not is_clean(message.reverse_path):
        return never("5.1.7", "the sender's address has characters that no command can carry", Class.CONTENT)
    octets = size(message)
    if extensions.size and octets > extensions.size:
        return never("5.3.4", f"the message has {octets} octets, {host} takes {extensions.size} at most", Class.CONTENT)
    if message.options.binary and not {"CHUNKING", "BINARYMIME"} <= extensions.keywords.keys():
        return never("5.6.3", f"the message has binary content (BINARYMIME), which {host} does not take", Class.CONTENT)
    if message.eight_bit and not message.options.binary and "8BITMIME" not in extensions:
        return never("5.6.3", f"the message has 8-bit content, which {host} does not take", Class.CONTENT)
    if "SMTPUTF8" not in extensions and (_header_is_utf8(message) or not message.reverse_path.isascii()):
        what = "sender's address" if not message.reverse_path.isascii() else "header"
        return never("5.6.7", f"the {what} has characters outside of ASCII (SMTPUTF8), which {host} does not take", Class.CONTENT)
    return None


def recipient_refusal(claim: Claim, extensions: Extensions, host: str) -> Bounced | None:
    """Why the peer can take the message not for this recipient; None when it can."""
    if not is_clean(claim.address + claim.orcpt):
        return never("5.1.3", "the address has characters that no command can carry", Class.CONTENT)
    if claim.address.isascii() or "SMTPUTF8" in extensions:
        return None
    return never("5.6.7", f"the address has characters outside of ASCII (SMTPUTF8), which {host} does not take", Class.CONTENT)


def transactions(claims: Sequence[Claim], extensions: Extensions) -> list[tuple[Claim, ...]]:
    """The recipients of each transaction, as the peer's RCPTMAX and RCPTDOMAINMAX demand (RFC 9422)."""
    groups: list[list[Claim]] = []
    domains: set[str] = set()
    for claim in claims:
        domain = claim.address.rpartition("@")[2].lower()
        full = not groups or len(groups[-1]) >= extensions.limit("RCPTMAX")
        if full or len(domains | {domain}) > extensions.limit("RCPTDOMAINMAX"):
            groups.append([])
            domains = set()
        groups[-1].append(claim)
        domains.add(domain)
    return [tuple(group) for group in groups]


def next_transaction(outcomes: dict[Claim, Outcome]) -> tuple[Claim, ...]:
    """The recipients that only came too late in a transaction that took others: they go in one more at once (RFC 5321 section 4.5.3.1.10)."""
    if not any(isinstance(outcome, Delivered) for outcome in outcomes.values()):
        return ()
    return tuple(claim for claim, outcome in outcomes.items() if _one_too_many(outcome))


def _one_too_many(outcome: Outcome) -> bool:
    reply = outcome.cause.reply if isinstance(outcome, Deferred) else None
    return reply is not None and reply.code == 452 and (reply.enhanced == "4.5.3" or _TOO_MANY.search(reply.text) is not None)
