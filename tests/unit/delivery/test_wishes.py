"""Parameters of MAIL that carry a client's wishes on."""

from dataclasses import replace

import pytest

from postroom_delivery.dialogue import Extensions, mail_command
from postroom_delivery.needs import tunnelled, wishes
from postroom_delivery.spool.model import ClaimedMessage, MailOptions

NOW = 1_790_000_000_000
ALL = Extensions({"DELIVERBY": "", "MT-PRIORITY": ""})
MESSAGE = ClaimedMessage("1", "t", "d.example", "a@d.example", b"From: a\r\n", 0, False, NOW, NOW, "", "", "", b"", ())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (MailOptions(), ()),
        (MailOptions(deliver_by=NOW + 90_500, deliver_by_return=True), ("BY=90;R",)),
        (MailOptions(deliver_by=NOW - 5, deliver_by_return=True), ("BY=1;R",)),
        (MailOptions(deliver_by=NOW - 90_000), ("BY=-90;N",)),
        (MailOptions(priority=-9), ("MT-PRIORITY=-9",)),
        (MailOptions(deliver_by=NOW + 1000, priority=3), ("BY=1;N", "MT-PRIORITY=3")),
        (MailOptions(hold_until=NOW), ()),
    ],
)
def test_wishes_are_told_to_who_understands_them(options: MailOptions, expected: tuple[str, ...]) -> None:
    message = replace(MESSAGE, options=options)
    assert wishes(message, ALL, NOW) == expected
    assert wishes(message, Extensions({}), NOW) == ()
    assert mail_command(message, ALL, expected, utf8=False) == " ".join(["MAIL FROM:<a@d.example>", *expected]).encode() + b"\r\n"


def test_a_priority_is_tunnelled_where_it_cannot_be_told() -> None:
    message = replace(MESSAGE, options=MailOptions(priority=3))
    assert tunnelled(message, ALL) is message
    assert tunnelled(message, Extensions({})).headers == b"MT-Priority: 3\r\nFrom: a\r\n"
    assert tunnelled(MESSAGE, Extensions({})) is MESSAGE
