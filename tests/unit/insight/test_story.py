"""`postroom explain` tells why a message failed, once per cause, in the words of the catalogue."""

from postroom_cli import story
from postroom_cli.clients import Event, Message, Recipient


def event(kind: str, code: int, enhanced: str, text: str, classification: str) -> Event:
    return Event(1, 0, "ID1", "b@x.example", kind, code, enhanced, text, classification, "mx.x.example[192.0.2.1]", "", 1)


def message() -> Message:
    return Message("ID1", "a@d.example", "default/main", "default", 100, 0, 0, (Recipient("b@x.example", "scheduled", 0, 2, "", "", False),))


def test_each_cause_is_explained_once_with_the_names_of_the_message() -> None:
    full = event("deferred", 452, "4.2.2", "The recipient's inbox is out of storage space.", "mailbox-full")
    told = story.tell(message(), [full, full, event("deferred", 550, "5.7.23", "SPF validation failed", "authentication")])
    assert [line.split(":")[0] for line in told if line.startswith(("Mailbox full", "SPF failed"))] == ["Mailbox full", "SPF failed"]
    assert "  where to look: postroom check d.example --egress ADDRESS, the rows spf" in told


def test_success_and_what_people_did_need_no_explanation() -> None:
    events = [event("delivered", 250, "2.0.0", "OK", "success"), event("bounced", 0, "5.0.0", "bounced by the postmaster's command", "other")]
    assert story.reasons(events, "a@d.example") == []
