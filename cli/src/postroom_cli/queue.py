"""The commands that look at and steer the queue: queue …, explain, events, stats."""

import asyncio
import dataclasses
import functools
import json
import re
from collections.abc import Sequence
from typing import Any

import click
from rich.table import Table

from postroom_cli import show, story
from postroom_cli.clients import ACTIONS, DeadLetter, Message, connected
from postroom_cli.command import as_json, place, run
from postroom_core.clock import SystemClock
from postroom_core.errors import Permanent, Unavailable
from postroom_core.reply import Reply
from postroom_delivery.classify import classify
from postroom_insight import explanations

# People's eyes; the spool is asked once in this time.
POLL_SECONDS = 0.2
# A reply as it stands in logs and bounces: code, enhanced code, text.
_REPLY = re.compile(r"([245]\d\d)[ -](?:([245]\.\d{1,3}\.\d{1,3}) )?(.+)", re.DOTALL)
_COLOURS = {
    "delivered": "green",
    "bounced": "red",
    "suppressed": "red",
    "expired": "red",
    "dead-letter": "red",
    "deferred": "yellow",
    "ambiguous": "yellow",
}


@click.group()
def queue() -> None:
    """Look at and steer the queue."""


def _dump(value: Any) -> None:
    def plain(found: Any) -> Any:
        return found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)

    click.echo(json.dumps(value, default=plain, ensure_ascii=False))


def _selecting(command: Any) -> Any:
    """The options that select recipients; the command gets them as `which`."""
    options = (
        click.option(
            "--state", "states", multiple=True, help="scheduled, leased, held, delivered, bounced, expired, deleted; default: the open ones."
        ),
        click.option("--domain", default="", help="Only recipients of this domain."),
        click.option("--sender", default="", help="Only this reverse-path."),
        click.option("--tenant", default="", help="Only mail of this namespace."),
        click.option("--pool", default="", help="Only this pool, NAMESPACE/NAME."),
        click.option("--destination", default="", help="Only this destination, as `postroom stats` names it."),
        click.option("--class", "last_class", default="", help="Only where the last reply was of this class."),
        click.option("--older", type=float, default=0.0, help="Only what was received more than so many seconds ago."),
    )

    @functools.wraps(command)
    def selecting(*arguments: Any, older: float, **values: Any) -> Any:
        names = ("states", "domain", "sender", "tenant", "pool", "destination", "last_class")
        which = {name: values.pop(name) for name in names}
        which["received_before_ms"] = SystemClock().now_ms() - int(older * 1000) if older else 0
        return command(*arguments, which=which, **values)

    for option in reversed(options):
        selecting = option(selecting)
    return selecting


@queue.command("ls")
@_selecting
@click.option("--limit", default=100, type=click.IntRange(1, 1000), help="At most so many messages.")
@as_json
def list_(which: dict[str, Any], limit: int, json_: bool) -> None:
    """Messages in the queue, oldest first."""

    async def ask() -> list[Message]:
        async with connected(place()) as client:
            return await client.list(limit=limit, **which)

    messages = run(ask())
    if json_:
        for message in messages:
            _dump(dataclasses.asdict(message))
        return
    table = Table("id", "received", "from", "to", "state", "attempts", "next try", "last reply")
    for message in messages:
        for recipient in message.recipients:
            colour = {"scheduled": "yellow", "held": "magenta", "leased": "cyan", "delivered": "green"}.get(recipient.state, "red")
            due = show.when(recipient.due_at) if recipient.state == "scheduled" else ""
            row = (message.id, show.when(message.received_at), message.reverse_path or "<>", recipient.address)
            table.add_row(*row, f"[{colour}]{recipient.state}[/]", str(recipient.attempts), due, recipient.last_reply)
    show.out.print(table if messages else "the queue is empty")


@queue.command("show")
@click.argument("message_id")
@click.option("--headers", is_flag=True, help="With the header block, while the message is open.")
@as_json
def show_(message_id: str, headers: bool, json_: bool) -> None:
    """One message with every recipient."""

    async def ask() -> Message:
        async with connected(place()) as client:
            return await client.show(message_id, headers=headers)

    message = run(ask())
    if json_:
        _dump(dataclasses.asdict(message))
        return
    for name, value in (("id", message.id), ("from", message.reverse_path or "<>"), ("pool", message.pool), ("size", show.size(message.size))):
        show.out.print(f"[bold]{name}[/bold] {value}")
    for recipient in message.recipients:
        show.out.print(f"  {recipient.address}: {recipient.state}, {recipient.attempts} attempts {recipient.last_reply}", markup=False)
    if headers:
        click.echo(message.headers.decode("utf-8", "replace"))


def _action(name: str, help_text: str) -> None:
    @queue.command(name, help=help_text)
    @click.argument("message_ids", nargs=-1)
    @click.option("--all", "everything", is_flag=True, help="Every open recipient that the other options select.")
    @_selecting
    @as_json
    def command(message_ids: Sequence[str], everything: bool, which: dict[str, Any], json_: bool) -> None:
        if not message_ids and not everything:
            raise click.UsageError("name message ids, or --all")

        async def act() -> int:
            async with connected(place()) as client:
                return await client.act(name, message_ids, everything=everything, **which)

        changed = run(act())
        _dump({"changed": changed}) if json_ else show.out.print(f"{changed} recipients changed")
        if not changed:
            raise SystemExit(1)


for _name, _help in zip(
    ACTIONS,
    ("Try now.", "Stop trying until released.", "Let held messages go on.", "End with a notice to the sender.", "End without a notice."),
    strict=True,
):
    _action(_name, _help)


@queue.command("suspend")
@click.argument("destination", required=False)
@click.option("--tenant", default="", help="Instead of a destination: all mail of this tenant, which is accepted all the same.")
@click.option("--pool", default="default/main", show_default=True, help="The destination's.")
@click.option("--resume", is_flag=True, help="Let it go on.")
def suspend(destination: str | None, tenant: str, pool: str, resume: bool) -> None:
    """Stop all attempts to one destination, or for one tenant."""
    if bool(destination) == bool(tenant):
        raise click.UsageError("name a destination, or a tenant by --tenant")

    async def act() -> int:
        async with connected(place()) as client:
            if tenant:
                return await client.suspend_tenant(tenant, suspended=not resume)
            return await client.suspend(pool, destination or "", suspended=not resume)

    run(act())
    show.out.print(f"{tenant or destination} {'goes on' if resume else 'is suspended'}")


@queue.command("dead-letters")
@click.option("--limit", default=100, type=click.IntRange(1, 1000), help="At most so many.")
@as_json
def dead_letters(limit: int, json_: bool) -> None:
    """Bounces of bounces, newest first: what could be told to nobody."""

    async def ask() -> Sequence[DeadLetter]:
        async with connected(place()) as client:
            return await client.dead_letters(limit)

    letters = run(ask())
    if json_:
        for letter in letters:
            _dump(dataclasses.asdict(letter))
        return
    table = Table("id", "when", "why")
    for letter in letters:
        table.add_row(letter.message, show.when(letter.at), letter.reason)
    show.out.print(table if letters else "no dead letters")


@queue.command("wait-empty")
@click.option("--timeout", type=float, default=None, help="Seconds to wait; exit code 1 when they pass.")
@as_json
def wait_empty(timeout: float | None, json_: bool) -> None:
    """Wait until nothing is waiting or being sent."""

    async def wait() -> dict[str, int]:
        async with connected(place()) as client:
            while True:
                try:
                    found = (await client.stats())["recipients"]
                except Unavailable:
                    if not place().may_come_back:
                        raise
                    await asyncio.sleep(POLL_SECONDS)  # delivery is being started again
                    continue
                if not any(found.get(state) for state in ("scheduled", "leased")):
                    return dict(found)
                await asyncio.sleep(POLL_SECONDS)

    async def bounded() -> dict[str, int]:
        try:
            async with asyncio.timeout(timeout):
                return await wait()
        except TimeoutError:
            raise Permanent(f"the queue is not empty after {timeout} s") from None

    found = run(bounded())
    _dump({"empty": True, "recipients": found}) if json_ else show.out.print(f"empty; on hold: {found.get('held', 0)}")


@click.command()
@click.argument("what")
@as_json
def explain(what: str, json_: bool) -> None:
    """The story of a message in plain words; or, for a reply in quotes ("550 5.7.1 …"), what it means."""
    if reply := _REPLY.fullmatch(what.strip()):
        _explain_reply(reply, json_=json_)
        return
    message_id = what

    async def ask() -> tuple[Message, list[Any]]:
        async with connected(place()) as client:
            return await client.show(message_id), [event async for event in client.events(message_id)]

    message, events = run(ask())
    if json_:
        why = [found.as_dict() for found in story.reasons(events, message.reverse_path)]
        told = {"message": dataclasses.asdict(message), "events": [event.raw for event in events], "outlook": story.outlook(message)}
        _dump(told | {"explanations": why})
        return
    for line in story.tell(message, events):
        show.out.print(line, markup=False, soft_wrap=True)


def _explain_reply(match: re.Match[str], *, json_: bool) -> None:
    """Needs no running instance. A reply is looked up first as Postroom's own to an application, then as another server's."""
    reply = Reply(int(match[1]), match[2] or "", match[3])
    classification = classify(reply).value
    found = explanations.explain(str(reply), side="submission") or explanations.explain(str(reply), classification)
    if json_:
        _dump({"reply": str(reply), "class": classification, "explanation": found.as_dict() if found is not None else None})
    elif found is not None:
        for line in story.advice(found.filled()):
            show.out.print(line, markup=False, soft_wrap=True)
    if found is None:
        raise SystemExit(1)


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on as they happen.")
@click.option("--message", default="", help="Only of this message id.")
@as_json
def events(follow: bool, message: str, json_: bool) -> None:
    """Every state change of every message."""

    async def tell() -> None:
        async with connected(place()) as client:
            async for event in client.events(message, follow=follow):
                if json_:
                    found = story.explanation(event)
                    _dump(event.raw | ({"explanation": found.name} if found is not None else {}))
                else:
                    colour = _COLOURS.get(event.kind, "")
                    show.out.print(f"{event.message} {story.sentence(event)}", style=colour, markup=False, soft_wrap=True)
                    if (found := story.explanation(event)) is not None:
                        show.out.print(f"  {found.title}: {found.remedy}", style="dim", markup=False, soft_wrap=True)

    run(tell())
