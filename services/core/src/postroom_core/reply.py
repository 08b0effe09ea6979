"""An SMTP reply as a value: code, enhanced code, text (RFC 5321 section 4.2, RFC 2034).

Ours to peers and peers' to us have the same shape. The text of our own replies is fixed: it never holds an exception's text.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reply:
    """`enhanced` is "" where none belongs: greeting, EHLO, 3xx, and replies of peers without ENHANCEDSTATUSCODES."""

    code: int
    enhanced: str
    text: str

    @property
    def kind(self) -> int:
        """The first digit: 2 done, 3 go on, 4 later, 5 never."""
        return self.code // 100

    def encode(self) -> bytes:
        """Wire form, CRLF included; a text of several lines becomes a multi-line reply with the enhanced code on each."""
        lines = self.text.split("\n")
        prefix = f"{self.enhanced} " if self.enhanced else ""
        parts = [f"{self.code}{'-' if index < len(lines) - 1 else ' '}{prefix}{line}\r\n" for index, line in enumerate(lines)]
        return "".join(parts).encode("utf-8", "replace")

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text.replace("\n", " ")) if part)
