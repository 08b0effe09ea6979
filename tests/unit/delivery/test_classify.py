"""What replies mean."""

import pytest

from postroom_core.reply import Reply
from postroom_delivery.classify import Class, classify

TABLE = [
    (Reply(250, "2.0.0", "OK"), Class.SUCCESS),
    (Reply(450, "4.2.0", "Greylisted, try later"), Class.GREYLIST),
    (Reply(452, "4.2.2", "over quota"), Class.MAILBOX_FULL),
    (Reply(550, "5.1.1", "who?"), Class.UNKNOWN_USER),
    (Reply(550, "5.0.0", "No such user here"), Class.UNKNOWN_USER),
    (Reply(421, "4.7.0", "come back"), Class.THROTTLE),
    (Reply(554, "5.7.1", "blocked using zen.spamhaus.org"), Class.POLICY),
    (Reply(554, "5.6.0", "broken"), Class.CONTENT),
    (Reply(550, "5.7.10", "encryption needed"), Class.TLS),
    (Reply(451, "4.3.0", "hm"), Class.OTHER),
]


@pytest.mark.parametrize(("reply", "expected"), TABLE)
def test_a_reply_has_its_class(reply: Reply, expected: Class) -> None:
    assert classify(reply) is expected
