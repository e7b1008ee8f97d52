"""Why somebody acts, in their own words: asked for with every action, kept and shown, never interpreted."""

from __future__ import annotations

from typing import Any, Final

from clio_control_api.errors import BadRequest

MAX_REASON: Final = 200


def checked_reason(text: Any) -> str:
    """The reason a request gives; "" when it gives none.

    Raises:
        BadRequest: it is no text, too long, or more than one line.
    """
    if text is None:
        return ""
    if not isinstance(text, str):
        raise BadRequest("reason is a text")
    found: str = text.strip()
    if len(found) > MAX_REASON:
        raise BadRequest(f"reason has {len(found)} characters, more than {MAX_REASON}")
    if not found.isprintable():
        raise BadRequest("reason is one line of printable text")
    return found
