"""A message as JSON → a message as RFC 5322 has it. Pure: the models that the API documents, and Python's email library to write them out.

Nothing that a client gives can begin a header line of its own: addresses are parsed strictly, the email library refuses CR and LF, and fields that
the service or the structure owns cannot be given at all (A7, A14).
"""

import base64
import binascii
import email.policy
import re
from email.headerregistry import Address as HeaderAddress
from email.message import EmailMessage
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator, model_validator

from postroom_core.address import BadAddress, Mailbox, parse_mailbox

# Eight bits nowhere: every receiver takes it, and no hop has a reason to convert.
_POLICY = email.policy.SMTP.clone(cte_type="7bit")
_OWNED = re.compile(
    r"(?i)from|sender|to|cc|bcc|subject|date|message-id|return-path|received|dkim-signature|authentication-results|arc-.*|mime-version|content-.*"
)
_NAME = re.compile(r"[!-9;-~]{1,76}")
_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64}")
Line = Annotated[str, StringConstraints(max_length=998, pattern=r"^[^\r\n\x00]*$")]


def _decoded(value: object) -> object:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else value
    except binascii.Error:
        raise ValueError("must be base64") from None


Base64 = Annotated[bytes, BeforeValidator(_decoded)]


class Model(BaseModel):
    """Closed: a misspelt field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Address(Model):
    """A mail address, perhaps with a name for people."""

    address: Line
    name: Line = ""

    @field_validator("address")
    @classmethod
    def _strict(cls, value: str) -> str:
        try:
            return str(parse_mailbox(value, utf8=True))
        except BadAddress as error:
            raise ValueError(str(error)) from error

    @property
    def mailbox(self) -> Mailbox:
        return parse_mailbox(self.address, utf8=True)


class Attachment(Model):
    """A file; with `contentId` it is shown inside of the HTML, which names it as cid:CONTENT-ID."""

    filename: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\r\n\x00]*$")]
    content_type: str = Field(default="application/octet-stream", alias="contentType", max_length=129)
    content: Base64 = Field(json_schema_extra={"contentEncoding": "base64"})
    content_id: str = Field(default="", alias="contentId", max_length=200, pattern=r"^[A-Za-z0-9._@-]*$")

    @field_validator("content_type")
    @classmethod
    def _known(cls, value: str) -> str:
        if not _TYPE.fullmatch(value) or value.lower().startswith(("multipart/", "message/")):
            raise ValueError("must be TYPE/SUBTYPE, and neither multipart nor message")
        return value


class Content(Model):
    """What a message says; at least one of text and html."""

    sender: Address = Field(alias="from", description="the From field, and the reverse-path when no other is given")
    reply_to: list[Address] = Field(default=[], alias="replyTo", max_length=10)
    subject: Line = ""
    text: str | None = None
    html: str | None = None
    attachments: list[Attachment] = Field(default=[], max_length=100)
    headers: dict[str, Line] = Field(default={}, description="further fields, such as List-Unsubscribe", max_length=50)

    @field_validator("headers")
    @classmethod
    def _allowed(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not _NAME.fullmatch(name) or _OWNED.fullmatch(name) or name.lower() == "reply-to":
                raise ValueError(f"{name[:76]!r} cannot be given as a header")
        return value

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.text is None and self.html is None:
            raise ValueError("one of text and html is needed")
        return self


class Message(Content):
    """One message to one or more recipients, all of whom see `to` and `cc`."""

    to: list[Address] = Field(default=[], max_length=1000)
    cc: list[Address] = Field(default=[], max_length=1000)
    bcc: list[Address] = Field(default=[], max_length=1000)
    reverse_path: Address | None = Field(default=None, alias="reversePath", description="where bounces go; `from` when left out")

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Self:
        if not self.recipients:
            raise ValueError("one of to, cc and bcc is needed")
        return self

    @property
    def recipients(self) -> list[Mailbox]:
        """All of them once, in order."""
        return list(dict.fromkeys(address.mailbox for address in (*self.to, *self.cc, *self.bcc)))


class Batch(Model):
    """One content for many recipients, each of whom gets a message of their own and sees nobody else."""

    message: Content
    recipients: list[Address] = Field(min_length=1, max_length=1000)
    reverse_path: Address | None = Field(default=None, alias="reversePath")

    def to(self, recipient: Address) -> Message:
        """The message for one of them."""
        shared = {name: getattr(self.message, name) for name in Content.model_fields}
        return Message.model_construct(**shared, to=[recipient], cc=[], bcc=[], reverse_path=self.reverse_path)


def compose(message: Message) -> bytes:
    """The message with CRLF, without Bcc; Date and Message-ID are the stamp's. Raises ValueError for what cannot be written."""
    made = EmailMessage(policy=_POLICY)
    made["From"] = _header(message.sender)
    for name, addresses in (("To", message.to), ("Cc", message.cc), ("Reply-To", message.reply_to)):
        if addresses:
            made[name] = [_header(address) for address in addresses]
    made["Subject"] = message.subject
    for name, value in message.headers.items():
        made[name] = value
    if message.text is not None:
        made.set_content(message.text)
    if message.html is not None and message.text is not None:
        made.add_alternative(message.html, subtype="html")
    elif message.html is not None:
        made.set_content(message.html, subtype="html")
    html = made.get_body(("html",))
    for attachment in message.attachments:
        kind, _, subtype = attachment.content_type.partition("/")
        inline = bool(attachment.content_id) and html is not None
        where = html if inline and isinstance(html, EmailMessage) else made
        attach = where.add_related if inline else where.add_attachment
        cid = f"<{attachment.content_id}>" if attachment.content_id else None
        attach(
            attachment.content,
            maintype=kind,
            subtype=subtype,
            filename=attachment.filename,
            cid=cid,
            disposition="inline" if inline else "attachment",
        )
    return made.as_bytes()


def _header(address: Address) -> HeaderAddress:
    local, _, domain = address.address.rpartition("@")
    return HeaderAddress(address.name, username=local.strip('"').replace("\\", ""), domain=domain)
