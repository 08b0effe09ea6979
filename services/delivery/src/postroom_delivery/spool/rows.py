"""Rows of the database as values: the order of columns that both engines' statements share. Pure. SQLite has 0 and 1 for booleans."""

from collections.abc import Iterable
from typing import Any

from postroom_delivery.spool.model import Claim, ClaimedMessage, MailOptions, MessageRow, RecipientRow


def options_of(columns: Iterable[Any]) -> MailOptions:
    """MailOptions of its columns, in the order of its fields."""
    smtputf8, require_tls, tls_optional, binary, hold_until, deliver_by, by_return, priority = columns
    return MailOptions(bool(smtputf8), bool(require_tls), bool(tls_optional), bool(binary), hold_until, deliver_by, bool(by_return), priority)


def claimed_message(row: Iterable[Any], body: bytes | None, claims: tuple[Claim, ...]) -> ClaimedMessage:
    """Of the columns of the statements `claimed_message` and `claimed_messages`."""
    identity, tenant, domain, sender, headers, body_size, eight_bit, received, expires, ret, envid, traceparent, sign, *options = row
    return ClaimedMessage(
        id=identity,
        tenant=tenant,
        domain=domain,
        reverse_path=sender,
        headers=headers,
        body_size=body_size,
        eight_bit=bool(eight_bit),
        received_at=received,
        expires_at=expires,
        ret=ret,
        envid=envid,
        traceparent=traceparent,
        body=body,
        claims=claims,
        options=options_of(options),
        sign=bool(sign),
    )


def message_row(row: Iterable[Any], recipients: Iterable[RecipientRow]) -> MessageRow:
    """Of the columns of the statements `message_row` and `message_rows`."""
    identity, reverse_path, pool, tenant, domain, credential, client, size, received, expires, headers, ret, envid, *options = row
    return MessageRow(
        id=identity,
        reverse_path=reverse_path,
        pool=pool,
        tenant=tenant,
        domain=domain,
        credential=credential,
        client_address=client,
        size=size,
        received_at=received,
        expires_at=expires,
        headers=headers,
        ret=ret,
        envid=envid,
        recipients=tuple(recipients),
        options=options_of(options),
    )
