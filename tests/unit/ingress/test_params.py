"""Arguments of MAIL and RCPT."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom_ingress.params import BadArgument, parse_mail, parse_rcpt


def test_what_clients_send_is_understood() -> None:
    mail = parse_mail("FROM:<a@d.example> SIZE=1000 BODY=8BITMIME RET=HDRS ENVID=Ab+2Bc AUTH=<>")
    assert (str(mail.sender), mail.size, mail.ret, mail.envid) == ("a@d.example", 1000, "HDRS", "Ab+2Bc")
    assert parse_mail("from:<>").sender is None
    assert parse_mail("FROM: <a@d.example> BODY=8BITMIME BODY=8BITMIME").size == 0
    rcpt = parse_rcpt('TO:<"a b"@d.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;A+2Bb@X')
    assert (str(rcpt.recipient), rcpt.notify, rcpt.orcpt) == ('"a b"@d.example', ("SUCCESS", "DELAY"), "rfc822;A+2Bb@X")


REFUSED = (
    ("FROM:a@d.example", 501),
    ("FROM:<a@d.example", 501),
    ("TO:<a@d.example>", 501),
    ("FROM:<a@d.example> SIZE=x", 501),
    ("FROM:<a@d.example> SIZE=1 SIZE=2", 501),
    ("FROM:<a@d.example> BODY=9BIT", 501),
    ("FROM:<a@d.example> SIZE=٣", 501),
    ("FROM:<a@d.example> REQUIRETLS", 555),
    ("FROM:<a@d.example> HOLDFOR=1", 555),
    ("FROM:<ä@d.example>", 553),
    ("FROM:<a@d.example> RET=ALL", 501),
    ("FROM:<a@d.example> RET=FULL RET=FULL", 501),
    ("FROM:<a@d.example> ENVID=a+zz", 501),
    ("FROM:<a@d.example> ENVID=" + "x" * 101, 501),
    ("FROM:<a@d.example> SMTPUTF8", 555),
    ("FROM:<a@d.example>  BODY=7BIT", 501),
    ("FROM:<@a.example:b@d.example>", 553),
    ("FROM:<a@[127.0.0.1]>", 553),
)


@pytest.mark.parametrize(("argument", "code"), REFUSED)
def test_what_is_wrong_is_told_by_its_code(argument: str, code: int) -> None:
    with pytest.raises(BadArgument) as caught:
        parse_mail(argument)
    assert caught.value.reply.code == code
    assert caught.value.reply.enhanced.startswith("5.")


@pytest.mark.parametrize(
    "argument", ["TO:<>", "TO:<a@d> NOTIFY=NEVER,SUCCESS", "TO:<a@d> NOTIFY=SUCCESS,SUCCESS", "TO:<a@d> ORCPT=x", "TO:<a@d> SIZE=1"]
)
def test_bad_recipients_are_refused(argument: str) -> None:
    with pytest.raises(BadArgument):
        parse_rcpt(argument)


@given(st.text())
def test_nothing_but_bad_argument_is_raised(text: str) -> None:
    for parse in (parse_mail, parse_rcpt):
        for prefix in ("", "FROM:<a@d> ", "TO:<a@d> ", "FROM:<", "TO:<"):
            with contextlib.suppress(BadArgument):
                parse(prefix + text)
