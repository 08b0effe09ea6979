"""FUTURERELEASE, DELIVERBY, MT-PRIORITY, REQUIRETLS and SMTPUTF8 as parameters of MAIL."""

import pytest

from postroom_ingress.options import BadOption, MailOptions, decide, parse
from postroom_ingress.params import BadArgument, parse_mail, parse_rcpt

NOW = 1_800_000_000_000


def decided(**found: str) -> MailOptions:
    return decide(parse({name.replace("_", "-"): value for name, value in found.items()}), NOW, 86_400)


def test_wishes_become_times_of_the_clock() -> None:
    assert decided(HOLDFOR="3600").hold_until == NOW + 3_600_000
    assert decided(HOLDUNTIL="2027-01-15T10:00:00+01:00").hold_until == NOW + 3_600_000
    assert decided(HOLDUNTIL="2020-01-01T00:00:00Z").hold_until == 0, "a time that has passed is now"
    by = decided(BY="120;R")
    assert (by.deliver_by, by.deliver_by_return) == (NOW + 120_000, True)
    late = decided(BY="-5;n")
    assert (late.deliver_by, late.deliver_by_return) == (NOW - 5000, False)
    assert decided(MT_PRIORITY="-3").priority == -3
    assert decided(REQUIRETLS="").require_tls
    assert decided(BODY="BinaryMIME").binary


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ({"HOLDFOR": "1", "HOLDUNTIL": "2027-01-15T09:00:00Z"}, 501),
        ({"HOLDFOR": "-1"}, 501),
        ({"HOLDFOR": ""}, 501),
        ({"HOLDFOR": "86401"}, 554),
        ({"HOLDUNTIL": "2027-02-30T00:00:00Z"}, 501),
        ({"HOLDUNTIL": "2027-01-15 09:00:00"}, 501),
        ({"HOLDUNTIL": "2028-01-15T09:00:00Z"}, 554),
        ({"BY": "0;R"}, 501),
        ({"BY": "-1;R"}, 501),
        ({"BY": "1"}, 501),
        ({"BY": "1;X"}, 501),
        ({"BY": "1;RT"}, 555),
        ({"BY": "60;R", "HOLDFOR": "61"}, 501),
        ({"MT-PRIORITY": "10"}, 501),
        ({"MT-PRIORITY": "+1"}, 501),
        ({"REQUIRETLS": "yes"}, 501),
        ({"SMTPUTF8": "1"}, 501),
    ],
)
def test_what_is_wrong_is_told_by_its_code(found: dict[str, str], code: int) -> None:
    with pytest.raises(BadOption) as caught:
        decide(parse(found), NOW, 86_400)
    assert caught.value.reply.code == code


def test_utf8_addresses_come_only_with_the_parameter_and_keep_their_local_part() -> None:
    offered = frozenset({"SMTPUTF8"})
    assert str(parse_mail("FROM:<δοκιμή@παράδειγμα.example> SMTPUTF8", offered).sender) == "δοκιμή@xn--hxajbheg2az3al.example"
    decomposed = "u\u0308@d.example"
    assert str(parse_mail(f"FROM:<{decomposed}> SMTPUTF8", offered).sender) == decomposed, "no normalisation of what is not ours"
    assert str(parse_rcpt("TO:<用户@例子.example> ORCPT=utf-8;用户@例子.example", utf8=True).recipient) == "用户@xn--fsqu00a.example"
    for refused in ("FROM:<ü@d.example>", "FROM:<a@ü.example>"):
        with pytest.raises(BadArgument) as caught:
            parse_mail(refused, offered)
        assert (caught.value.reply.code, caught.value.reply.enhanced) == (553, "5.6.7")


@pytest.mark.parametrize("local", ["a\u202eb", "a\u2028b", "a\u0085b", "a\u200bb", "ü" * 33, "=?utf-8?q?ü?="])
def test_local_parts_that_hide_what_they_are_are_refused(local: str) -> None:
    with pytest.raises(BadArgument):
        parse_rcpt(f"TO:<{local}@d.example>", utf8=True)
