"""Writes docs/errors.md from errors.toml of postroom_insight; a test fails when the page is not what this writes."""

import pathlib
from typing import Any

from postroom_insight.explanations import entries

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "errors.md"
_HEAD = """\
# The common errors explained

<!-- Written by scripts/gen_errors.py. -->

What an error means, why it happens, what to do and where to look. `postroom explain ID` says the same for a message, and
`postroom explain "550 5.7.1 …"` for a reply that you found somewhere. How replies are classified, and rules of your own: [replies.md](replies.md).
"""
_SIDES = {"submission": "## What Postroom says to an application", "delivery": "## What other servers say, and what happens on the way"}


def render() -> str:
    """The page."""
    parts = [_HEAD]
    for side, title in _SIDES.items():
        parts.append(f"{title}\n")
        parts += [_section(entry) for entry in entries() if entry["side"] == side]
    return "\n".join(parts)


def _section(entry: dict[str, Any]) -> str:
    seen = "\n".join(f"    {line}" for line in entry["seen"])
    look = "; ".join(f"`{place}`" for place in entry["look"])
    classes = f" (class {', '.join(entry['class'])})" if "class" in entry else ""
    return f"### {entry['title']}{classes}\n\n{seen}\n\n{entry['cause']}\n\n**What to do**: {entry['remedy']}\n\n**Where to look**: {look}\n"


if __name__ == "__main__":
    PAGE.write_text(render())
