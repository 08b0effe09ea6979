"""Arguments of MAIL and RCPT: the path and the ESMTP parameters, strictly (RFC 5321 section 4.1.2, RFC 1870, 3461, 4954, 6152). Pure.

Values of DSN parameters are kept octet for octet: a relay that rewrites an ENVID breaks what it is for.
"""

import re
from dataclasses import dataclass

from postroom_core.address import BadAddress, Mailbox, parse_mailbox
from postroom_core.reply import Reply

_PATH = re.compile(r' ?<((?:"(?:[^"\\]|\\.)*"|[^"<>\s])*)>(?: (.*))?')
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~]+))?")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_NOTIFY = frozenset({"SUCCESS", "FAILURE", "DELAY"})


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


@dataclass(frozen=True, slots=True)
class RcptArguments:
    recipient: Mailbox
    notify: tuple[str, ...] = ()
    orcpt: str = ""


def parse_mail(argument: str) -> MailArguments:
    """What follows `MAIL `. Raises BadArgument with 501, 553 or 555."""
    path, parameters = _split(argument, "FROM:")
    sender = _mailbox(path) if path else None
    found = _parameters(parameters, {"SIZE", "BODY", "RET", "ENVID", "AUTH"})
    size = found.get("SIZE", "0")
    if not size.isdigit() or len(size) > 20:
        raise BadArgument(Reply(501, "5.5.4", "SIZE is not a number of octets"))
    if found.get("BODY", "7BIT").upper() not in ("7BIT", "8BITMIME"):
        raise BadArgument(Reply(501, "5.5.4", "BODY must be 7BIT or 8BITMIME"))
    ret = found.get("RET", "").upper()
    if "RET" in found and ret not in ("FULL", "HDRS"):
        raise BadArgument(Reply(501, "5.5.4", "RET must be FULL or HDRS"))
    _xtext("ENVID", found.get("ENVID", ""), 100)
    if found.get("AUTH", "<>") != "<>":
        _xtext("AUTH", found["AUTH"], 500)  # RFC 4954 section 5: parsed, and distrusted: we act on our own authentication only
    return MailArguments(sender, int(size), ret, found.get("ENVID", ""))


def parse_rcpt(argument: str) -> RcptArguments:
    """What follows `RCPT `. Raises BadArgument."""
    path, parameters = _split(argument, "TO:")
    recipient = _mailbox(path)
    found = _parameters(parameters, {"NOTIFY", "ORCPT"})
    notify = tuple(found["NOTIFY"].upper().split(",")) if "NOTIFY" in found else ()
    if notify != ("NEVER",) and (not _NOTIFY.issuperset(notify) or len(set(notify)) != len(notify)):
        raise BadArgument(Reply(501, "5.5.4", "NOTIFY must be NEVER, or a list of SUCCESS, FAILURE and DELAY"))
    orcpt = found.get("ORCPT", "")
    if "ORCPT" in found:
        kind, separator, address = orcpt.partition(";")
        if not separator or not re.fullmatch(r"[A-Za-z0-9-]+", kind) or not address:
            raise BadArgument(Reply(501, "5.5.4", "ORCPT must be TYPE;XTEXT"))
        _xtext("ORCPT", address, 500)
    return RcptArguments(recipient, notify, orcpt)


def _split(argument: str, keyword: str) -> tuple[str, str]:
    if argument[: len(keyword)].upper() != keyword:
        raise BadArgument(Reply(501, "5.5.4", f"Syntax: {keyword}<address>"))
    match = _PATH.fullmatch(argument, len(keyword))
    if match is None:
        raise BadArgument(Reply(501, "5.1.7" if keyword == "FROM:" else "5.1.3", f"Syntax: {keyword}<address>"))
    return match[1], match[2] or ""


def _mailbox(path: str) -> Mailbox:
    try:
        return parse_mailbox(path)
    except BadAddress as error:
        raise BadArgument(Reply(553, "5.1.3", str(error))) from error


def _parameters(text: str, known: set[str]) -> dict[str, str]:
    """By upper-case keyword. An identical repeat of BODY or SIZE is tolerated: CPython's smtplib can send one."""
    found: dict[str, str] = {}
    for part in text.split(" ") if text else []:
        match = _PARAMETER.fullmatch(part)
        if match is None:
            raise BadArgument(Reply(501, "5.5.4", "A parameter is not KEYWORD or KEYWORD=VALUE"))
        keyword, value = match[1].upper(), match[2] or ""
        if keyword not in known:
            raise BadArgument(Reply(555, "5.5.4", f"The parameter {keyword[:20]} is not supported"))
        if keyword in found and not (keyword in ("BODY", "SIZE") and found[keyword] == value):
            raise BadArgument(Reply(501, "5.5.4", f"The parameter {keyword} is given twice"))
        found[keyword] = value
    return found


def _xtext(name: str, value: str, most: int) -> None:
    if len(value) > most or not _XTEXT.fullmatch(value):
        raise BadArgument(Reply(501, "5.5.4", f"{name} is not xtext of at most {most} characters"))
