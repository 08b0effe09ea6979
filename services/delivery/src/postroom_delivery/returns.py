"""What a report that came back means: an event for each recipient that it is about, and an entry of the suppression list where that is due. Pure.

A proven return path names the recipient, whatever the report says or fails to say; the suppression list believes nothing less, but a person's word.
A bounce that came later is judged by the same table as a reply: only what would have suppressed the address at once does so now. A complaint keeps
the domain's mail from the address for good: the recipient said so. The caller has found the message; addresses that were none of its
recipients are nobody's business here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from postroom_core.suppression import normal
from postroom_delivery.classify import Action, Table
from postroom_delivery.reports import Bounce, Complaint, Report, Unknown
from postroom_delivery.settle import MOST_EVIDENCE, SUPPRESSED_MS
from postroom_delivery.spool.model import EventDetail, MessageRow, Suppression

# What a provider calls feedback and is no wish to be left alone.
_HARMLESS = frozenset({"not-spam", "auth-failure", "dmarc"})


@dataclass(frozen=True, slots=True)
class Told:
    """For one recipient."""

    address: str
    event: EventDetail
    entries: tuple[Suppression, ...] = ()


def judge(report: Report, message: MessageRow, table: Table, now: int, named: str = "") -> list[Told]:
    """What to record; the caller's `message` is the one that the report is about, `named` its recipient by a proven return path."""
    known = {normal(recipient.address): recipient.address for recipient in message.recipients}
    match report:
        case Bounce():
            found = [(known[normal(f.address)], f.reply) for f in report.failures if normal(f.address) in known]
            if named:  # what it says of others is nobody's business; one that it calls by another name was forwarded
                found = [(named, next((reply for address, reply in found if address == named), report.failures[0].reply))]
            return [_bounced(address, EventDetail("bounced-later", reply), message, table, now) for address, reply in found]
        case Complaint():
            addresses = [known[normal(address)] for address in report.addresses if normal(address) in known] or _only(message)
            return [_complained(address, report, message, now) for address in ([named] if named else addresses)]
        case Unknown() if named and report.reply is not None:
            return [_bounced(named, EventDetail("bounced-later", report.reply), message, table, now)]
        case _:
            return [Told(named, EventDetail("reported", text=report.text))]


def _only(message: MessageRow) -> Sequence[str]:
    """Providers blot the address out; a message to one recipient says who it was."""
    return [message.recipients[0].address] if len(message.recipients) == 1 else []


def _bounced(address: str, event: EventDetail, message: MessageRow, table: Table, now: int) -> Told:
    assert event.reply is not None
    judgement = table.judge(event.reply, final=True)
    told = EventDetail(event.kind, event.reply, classification=judgement.classification.value)
    if judgement.action is not Action.SUPPRESS:
        return Told(address, told)
    evidence = str(event.reply)[:MOST_EVIDENCE]
    entry = Suppression("tenant", message.tenant, normal(address), "bounce", evidence, now, now + SUPPRESSED_MS)
    return Told(address, told, (entry,))


def _complained(address: str, report: Complaint, message: MessageRow, now: int) -> Told:
    event = EventDetail("complained", text=f"{report.feedback_type}, {report.text}")
    if report.feedback_type in _HARMLESS:
        return Told(address, EventDetail("reported", text=event.text))
    return Told(address, event, (Suppression("domain", message.domain, normal(address), "complaint", event.text, now),))
