"""Between protobuf and the spool's values. Nothing else of delivery sees a protobuf object."""

from dataclasses import replace

from postroom.v1 import queue_pb2, spool_pb2
from postroom_core.reply import Reply
from postroom_delivery.spool.model import Allowance, DeadLetter, EventRow, ListFilter, MailOptions, MessageRow, NewMessage, NewRecipient, Stats


def message(envelope: spool_pb2.Envelope, end: spool_pb2.End, destinations: dict[str, str], expires_at: int, campaign: str = "") -> NewMessage:
    """`destinations` by recipient address; `campaign` as analytics count it."""
    return NewMessage(
        id=envelope.message_id,
        tenant=envelope.tenant,
        pool=envelope.pool,
        domain=envelope.domain,
        credential=envelope.credential,
        reverse_path=envelope.reverse_path,
        recipients=tuple(NewRecipient(r.address, destinations[r.address], ",".join(r.notify), r.orcpt) for r in envelope.recipients),
        headers=end.header_block,
        body_size=end.body_size,
        eight_bit=end.eight_bit,
        received_at=envelope.received_at_ms,
        expires_at=expires_at,
        ret=envelope.ret,
        envid=envelope.envid,
        client_address=envelope.client_address,
        traceparent=envelope.traceparent,
        allowances=tuple(Allowance(a.key, a.window_seconds, a.maximum, a.amount or 1, a.unit or "messages") for a in envelope.allowances),
        options=_options(envelope.options),
        campaign=campaign,
    )


def _options(options: spool_pb2.MailOptions) -> MailOptions:
    return MailOptions(
        smtputf8=options.smtputf8,
        require_tls=options.require_tls,
        tls_optional=options.tls_optional,
        binary=options.binary,
        hold_until=options.hold_until_ms,
        deliver_by=options.deliver_by_ms,
        deliver_by_return=options.deliver_by_return,
        priority=options.priority,
    )


def accepted(message_id: str) -> spool_pb2.EnqueueResponse:
    return spool_pb2.EnqueueResponse(accepted=spool_pb2.Accepted(message_id=message_id))


def refused(reply: Reply) -> spool_pb2.EnqueueResponse:
    return spool_pb2.EnqueueResponse(refused=spool_pb2.Reply(code=reply.code, enhanced=reply.enhanced, text=reply.text))


def summary(row: MessageRow) -> queue_pb2.MessageSummary:
    return queue_pb2.MessageSummary(
        message_id=row.id,
        reverse_path=row.reverse_path,
        pool=row.pool,
        tenant=row.tenant,
        size=row.size,
        received_at_ms=row.received_at,
        expires_at_ms=row.expires_at,
        recipients=[
            queue_pb2.RecipientState(
                address=r.address,
                state=r.state.value,
                due_at_ms=r.due_at,
                attempts=r.attempts,
                last_reply=r.last_reply,
                last_class=r.last_class,
                in_doubt=r.ambiguous,
            )
            for r in row.recipients
        ],
    )


def detail(row: MessageRow, *, headers: bool) -> queue_pb2.MessageDetail:
    return queue_pb2.MessageDetail(
        summary=summary(row),
        header_block=row.headers if headers else b"",
        credential=row.credential,
        client_address=row.client_address,
        domain=row.domain,
        hold_until_ms=row.options.hold_until,
        deliver_by_ms=row.options.deliver_by,
        deliver_by_return=row.options.deliver_by_return,
        priority=row.options.priority,
        envid=row.envid,
    )


def event(row: EventRow) -> queue_pb2.Event:
    made = queue_pb2.Event(
        number=row.number,
        at_ms=row.at,
        message_id=row.message,
        recipient=row.recipient,
        kind=row.kind,
        code=row.code,
        enhanced=row.enhanced,
        text=row.text,
        remote=row.remote,
        tls=row.tls,
        attempt=row.attempt,
    )
    setattr(made, "class", row.classification)  # a Python keyword
    return made


def dead_letter(letter: DeadLetter) -> queue_pb2.DeadLetter:
    return queue_pb2.DeadLetter(message_id=letter.message, at_ms=letter.at, reason=letter.reason, header_block=letter.headers)


def list_filter(request: queue_pb2.ListRequest, most: int) -> ListFilter:
    states = tuple(request.states) or ListFilter().states
    return ListFilter(
        states=states,
        domain=request.domain,
        sender=request.sender,
        limit=min(max(1, request.limit or 100), most),
        after=request.after,
        tenant=request.tenant,
        pool=request.pool,
        destination=request.destination,
        classification=request.last_class,
        received_before=request.received_before_ms,
    )


def chosen(request: queue_pb2.ActRequest, most: int) -> ListFilter:
    """The recipients that a command means: those of the filter, in open states unless it names some; `domain` narrows it further."""
    which = list_filter(request.filter, most)
    return replace(which, limit=most, after=request.after, domain=request.domain or which.domain)


def stats(found: Stats, now: int) -> queue_pb2.StatsResponse:
    return queue_pb2.StatsResponse(
        recipients=found.recipients,
        due=found.due,
        oldest_due_seconds=max(0, now - found.oldest_due_at) // 1000 if found.due else 0,
        in_doubt=found.ambiguous,
        suspended_tenants=found.suspended_tenants,
        destinations=[
            queue_pb2.DestinationStats(
                pool=d.pool,
                destination=d.destination,
                scheduled=d.scheduled,
                connections=d.connections,
                suspended=d.suspended,
                next_at_ms=d.next_at,
                pace=d.factor,
            )
            for d in found.destinations
        ],
    )
