"""The four exceptions that cross module boundaries. Foreign exceptions are mapped to one of them where the library is called.

An error that is none of these is unknown, and unknown means *try later*: it never loses and never bounces a message.
"""

from postroom_core.reply import Reply


class PostroomError(Exception):
    """Base of the four."""


class Transient(PostroomError):
    """The same request may succeed later."""


class Permanent(PostroomError):
    """The same request will never succeed; the text says why and what to do."""


class Rejected(PostroomError):
    """A peer must hear this reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class Unavailable(PostroomError):
    """A part that we depend on (spool, signer, directory) is away; the peer hears 451."""
