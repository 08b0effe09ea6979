"""Writes docs/replies.md from replies.toml and the closed lists of classes and actions; a test fails when the page is not what this writes."""

import pathlib
from typing import Any

from postroom_delivery.classify import Action, Class, built_in, default_action

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "replies.md"

_CLASSES = {
    Class.SUCCESS: "The peer took the message.",
    Class.THROTTLE: "Too fast, too much, too many connections.",
    Class.GREYLIST: "A first attempt that is refused on purpose (RFC 6647).",
    Class.MAILBOX_FULL: "The mailbox has no room.",
    Class.UNKNOWN_USER: "There is no such mailbox.",
    Class.DISABLED: "The mailbox exists no more or is switched off.",
    Class.BLOCKED: "The sending address or domain is listed or has a bad reputation.",
    Class.AUTHENTICATION: "SPF, DKIM or DMARC of the sender failed.",
    Class.POLICY: "The other side does not want it, for a reason of its own.",
    Class.CONTENT: "The content is refused: spam, malware, broken format.",
    Class.TOO_LARGE: "The message is larger than the peer or the mailbox takes.",
    Class.NETWORK: "The host or the way to it has trouble.",
    Class.DNS: "A name is missing or wrong: the recipient's domain, the sender's, or the sending host's reverse name.",
    Class.TLS: "Encryption is missing or failed.",
    Class.OTHER: "Nothing that the table knows. A 4xx is tried again, a 5xx is final.",
}
_ACTIONS = {
    Action.RETRY: "Tried again on the pool's schedule, also after a 5xx.",
    Action.RETRY_SLOWLY: "Tried again after the pool's longest interval, also after a 5xx.",
    Action.REDUCE_RATE: "The destination is left alone for the pool's first interval; final or not as the code says.",
    Action.SUSPEND: "Tried again, also after a 5xx; the whole destination is left alone for the pool's longest interval.",
    Action.BOUNCE: "Final, also after a 4xx; the sender gets a DSN.",
    Action.SUPPRESS: "Final as with bounce; the address goes on the suppression list of the tenant for 90 days, see suppression.md.",
    Action.ALERT: "Counted in `postroom_delivery_alerts` and logged as a warning, because no retry mends it; final or not as the code says.",
}
_HEAD = """\
# What replies mean

<!-- Written by scripts/gen_replies.py. -->

Every 4xx and 5xx of another server gets a *class*, which events, metrics and `postroom explain` tell, and an *action*. The first rule that fits
decides: first the `replyRules` of the SendingPool in their order, then the built-in table below. A rule without an action has its class's
action. Without an action that says otherwise a 4xx is tried again until the message expires and a 5xx is final (RFC 5321 section 4.2.1); no
built-in rule makes a 4xx final.

## Rules of your own

```yaml
kind: SendingPool
spec:
  replyRules:
  - name: partner-maintenance          # their 5xx at night is not meant
    code: 5xx
    pattern: 'maintenance window'
    class: network
    action: retry-slowly
  - name: full-is-final                # do not wait for full mailboxes
    enhancedCode: x.2.2
    class: mailbox-full
    action: bounce
```

`code`, `enhancedCode` and `pattern` must all fit; at least one is needed. `code` is a number, `4xx` or `5xx`. In `enhancedCode` x stands for any
number and | separates alternatives. `pattern` is an RE2 pattern of at most 256 characters, searched in the first 4096 characters of the text
without regard to case; line breaks count as spaces. RE2 takes time linear in the text whatever the pattern: look-around and back-references,
which could not keep that, are refused when the resource is read. A change is in force within two seconds. Replies to the greeting and EHLO count
for the host, not for the message: 5xx there is tried again unless a rule of yours says `bounce`.
"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _rule(row: dict[str, Any]) -> str:
    parts = [f"`{row[name]}`" for name in ("code", "enhancedCode", "pattern") if name in row]
    return f"| {row['name']} | {_cell(' and '.join(parts))} | {row['class']} | {row.get('action', '')} | {_cell(row['seen'][0])} |"


def render() -> str:
    """The page."""
    lines = [_HEAD, "## Classes", "", "| class | meaning | after 4xx | after 5xx |", "|---|---|---|---|"]
    for one in Class:
        actions = ("", "") if one is Class.SUCCESS else (default_action(one, final=False).value, default_action(one, final=True).value)
        lines.append(f"| {one.value} | {_CLASSES[one]} | {actions[0]} | {actions[1]} |")
    lines += ["", "## Actions", "", "| action | what happens |", "|---|---|"]
    lines += [f"| {one.value} | {_ACTIONS[one]} |" for one in Action]
    lines += ["", "## The built-in table", "", "In the order in which it is asked.", ""]
    lines += ["| rule | fits | class | action | for example |", "|---|---|---|---|---|"]
    lines += [_rule(row) for row in built_in()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render())
