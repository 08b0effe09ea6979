"""Tag lists: `v=DMARC1; p=none` and their like (RFC 6376 section 3.2). Pure."""

import re

_TAG = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*)\s*=\s*([^;]*?)\s*", re.DOTALL)


def parse(text: str) -> dict[str, str] | None:
    """Lower-case names; None for what is no tag list, or names a tag twice. An empty last part is allowed."""
    found: dict[str, str] = {}
    parts = text.split(";")
    for part in parts[:-1] if not parts[-1].strip() else parts:
        tag = _TAG.fullmatch(part)
        if tag is None or tag[1].lower() in found:
            return None
        found[tag[1].lower()] = tag[2]
    return found
