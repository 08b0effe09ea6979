"""Arguments of MAIL and RCPT: the path and the ESMTP parameters, strictly (RFC 5321 section 4.1.2, RFC 1870, 3461, 4954, 6152, 6531). Pure.

Values of DSN parameters are kept octet for octet: a relay that rewrites an ENVID breaks what it is for.
"""

import re
from collections.abc import Set
from dataclasses import dataclass

from postroom_core.address import BadAddress, Mailbox, parse_mailbox
from postroom_core.reply import Reply
from postroom_ingress import options
from postroom_ingress.options import NO_WISHES, BadOption, Wishes

_PATH = re.compile(r' ?<((?:"(?:[^"\\]|\\.)*"|[^"<>\s])*)>(?: (.*))?')
# RFC 6531 section 3.3 opens esmtp-value to UTF-8; which values may have it is each parameter's own question.
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\u00a1-\U0010FFFF]+))?")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_UNITEXT = re.compile(r"(?:[!-*,-<>-~\u00a1-\U0010FFFF]|\+[0-9A-F]{2})*")  # RFC 6533 section 3, type utf-8
_NOTIFY = frozenset({"SUCCESS", "FAILURE", "DELAY"})
# What every transaction may use; the others only where their extension is offered.
ALWAYS = frozenset({"SIZE", "BODY", "RET", "ENVID", "AUTH"})
NON_ASCII = "The address is not ASCII and the transaction has no SMTPUTF8"


class BadArgument(Exception):
    """Carries the reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


@dataclass(frozen=True, slots=True)
class MailArguments:
    """`sender` None is the null reverse-path; `size` 0 is not declared."""

    sender: Mailbox | None
    size: int = 0
    ret: str = ""
    envid: str = ""
    wishes: Wishes = NO_WISHES


@dataclass(frozen=True, slots=True)
class RcptArguments:
    recipient: Mailbox
    notify: tuple[str, ...] = ()
    orcpt: str = ""


def parse_mail(argument: str, offered: Set[str] = frozenset()) -> MailArguments:
    """What follows `MAIL `; `offered` are the parameters beyond ALWAYS. Raises BadArgument with 501, 553 or 555."""
    path, parameters = _split(argument, "FROM:")
    found = _parameters(parameters, ALWAYS | offered)
    sender = _mailbox(path, utf8="SMTPUTF8" in found) if path else None
    size = found.get("SIZE", "0")
    if not re.fullmatch(r"\d{1,20}", size, re.ASCII):
        raise BadArgument(Reply(501, "5.5.4", "SIZE is not a number of octets"))
    if found.get("BODY", "7BIT").upper() not in ("7BIT", "8BITMIME", "BINARYMIME"):
        raise BadArgument(Reply(501, "5.5.4", "BODY must be 7BIT, 8BITMIME or BINARYMIME"))
    ret = found.get("RET", "").upper()
    if "RET" in found and ret not in ("FULL", "HDRS"):
        raise BadArgument(Reply(501, "5.5.4", "RET must be FULL or HDRS"))
    _xtext("ENVID", found.get("ENVID", ""), 100)
    if found.get("AUTH", "<>") != "<>":
        _xtext("AUTH", found["AUTH"], 500)  # RFC 4954 section 5: parsed, and distrusted: we act on our own authentication only
    try:
        wishes = options.parse(found)
    except BadOption as error:
        raise BadArgument(error.reply) from error
    return MailArguments(sender, int(size), ret, found.get("ENVID", ""), wishes)


def parse_rcpt(argument: str, *, utf8: bool = False) -> RcptArguments:
    """What follows `RCPT `; `utf8` when MAIL had SMTPUTF8. Raises BadArgument."""
    path, parameters = _split(argument, "TO:")
    recipient = _mailbox(path, utf8=utf8)
    found = _parameters(parameters, {"NOTIFY", "ORCPT"})
    notify = tuple(found["NOTIFY"].upper().split(",")) if "NOTIFY" in found else ()
    if notify != ("NEVER",) and (not _NOTIFY.issuperset(notify) or len(set(notify)) != len(notify)):
        raise BadArgument(Reply(501, "5.5.4", "NOTIFY must be NEVER, or a list of SUCCESS, FAILURE and DELAY"))
    orcpt = found.get("ORCPT", "")
    if "ORCPT" in found:
        kind, separator, address = orcpt.partition(";")
        if not separator or not re.fullmatch(r"[A-Za-z0-9-]+", kind) or not address:
            raise BadArgument(Reply(501, "5.5.4", "ORCPT must be TYPE;XTEXT"))
        _xtext("ORCPT", address, 500, _UNITEXT if utf8 and kind.lower() == "utf-8" else _XTEXT)
    return RcptArguments(recipient, notify, orcpt)


def _split(argument: str, keyword: str) -> tuple[str, str]:
    if argument[: len(keyword)].upper() != keyword:
        raise BadArgument(Reply(501, "5.5.4", f"Syntax: {keyword}<address>"))
    match = _PATH.fullmatch(argument, len(keyword))
    if match is None:
        raise BadArgument(Reply(501, "5.1.7" if keyword == "FROM:" else "5.1.3", f"Syntax: {keyword}<address>"))
    return match[1], match[2] or ""


def _mailbox(path: str, *, utf8: bool) -> Mailbox:
    if not utf8 and not path.isascii():
        raise BadArgument(Reply(553, "5.6.7", NON_ASCII))  # RFC 6531 section 3.5
    try:
        return parse_mailbox(path, utf8=utf8)
    except BadAddress as error:
        raise BadArgument(Reply(553, "5.1.3", str(error))) from error


def _parameters(text: str, known: Set[str]) -> dict[str, str]:
    """By upper-case keyword. An identical repeat of BODY, SIZE or SMTPUTF8 is tolerated: CPython's smtplib can send one."""
    found: dict[str, str] = {}
    for part in text.split(" ") if text else []:
        match = _PARAMETER.fullmatch(part)
        if match is None:
            raise BadArgument(Reply(501, "5.5.4", "A parameter is not KEYWORD or KEYWORD=VALUE"))
        keyword, value = match[1].upper(), match[2] or ""
        if keyword not in known:
            raise BadArgument(Reply(555, "5.5.4", f"The parameter {keyword[:20]} is not supported"))
        if keyword in found and not (keyword in ("BODY", "SIZE", "SMTPUTF8") and found[keyword] == value):
            raise BadArgument(Reply(501, "5.5.4", f"The parameter {keyword} is given twice"))
        found[keyword] = value
    return found


def _xtext(name: str, value: str, most: int, form: re.Pattern[str] = _XTEXT) -> None:
    if len(value) > most or not form.fullmatch(value):
        raise BadArgument(Reply(501, "5.5.4", f"{name} is not xtext of at most {most} characters"))
