"""`postroom send`: submits one test message through the running instance, as an application would, and follows its story to the end."""

import json
import secrets
import smtplib
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any

import click

from postroom_cli import show, story
from postroom_cli.clients import Event, connected
from postroom_cli.command import as_json, layout, run
from postroom_core.errors import Permanent, Unavailable

SECONDS = 30.0
FINAL = ("delivered", "bounced", "suppressed", "expired", "deleted", "dead-letter")


@click.command()
@click.option("--from", "sender", required=True, help="Sender; one of your credentials must be allowed to use it.")
@click.option("--to", "recipient", required=True, help="Recipient.")
@click.option("--subject", default="A test by postroom send", show_default=True)
@as_json
def send(sender: str, recipient: str, subject: str, json_: bool) -> None:
    """Send a test message and follow its story."""
    found = layout()
    try:
        running = json.loads(found.running.read_text())
    except OSError as error:
        raise Unavailable(f"no Postroom is running with the data folder {found.root}; start it with postroom up") from error
    message_id = _submit(running, sender, recipient, subject)
    if not json_:
        show.out.print(f"accepted as {message_id}")
    final = run(_follow(message_id, json_=json_))
    if final.kind != "delivered":
        raise SystemExit(1)


def _submit(running: dict[str, Any], sender: str, recipient: str, subject: str) -> str:
    domain = sender.rpartition("@")[2]
    login = next((one for one in running["logins"] if domain == one["domain"] or domain.endswith(f".{one['domain']}")), None)
    if login is None:
        raise Permanent(
            f"no credential of the running instance is for {domain}; its domains: {', '.join(one['domain'] for one in running['logins'])}"
        )
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, recipient, subject
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = f"<{secrets.token_hex(16)}@{domain}>"
    message.set_content("This message was sent by postroom send, to see whether mail arrives.\n")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # our own listener, on our own machine
    try:
        with smtplib.SMTP(running["listen"], running["ports"]["submission"], timeout=SECONDS) as client:
            client.starttls(context=context)
            client.login(login["username"], login["password"])
            client.mail(sender)
            code, text = client.rcpt(recipient)
            if code == 250:
                code, text = client.data(message.as_bytes(policy=SMTP))
    except (OSError, smtplib.SMTPException) as error:
        raise Unavailable(f"the message could not be submitted: {error}") from error
    if code != 250:
        raise Permanent(f"the message was refused: {code} {text.decode('utf-8', 'replace')}")
    return text.decode().rsplit(" ", 1)[-1]


async def _follow(message_id: str, *, json_: bool) -> Event:
    async with connected(layout()) as client:
        async for event in client.events(message_id, follow=True):
            if json_:
                click.echo(json.dumps(event.raw, ensure_ascii=False))
            else:
                show.out.print(story.sentence(event), markup=False, soft_wrap=True)
            if event.kind in FINAL:
                return event
    raise Unavailable("the story ended before the message did")
