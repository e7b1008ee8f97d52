"""JSON answers that grow with the cluster, sent as they are made: what one costs does not grow with it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

from flask import Response

PIECE: Final = 32 * 1024
"""Characters after which a piece is sent; it ends with the row that reaches it."""

_encode: Final = json.JSONEncoder(separators=(",", ":")).encode  # ASCII only


def pieces(before: str, rows: Iterable[Any], after: str) -> Iterator[bytes]:
    """`before`, the rows as JSON with commas between them, and `after`, in pieces of some `PIECE` bytes."""
    held = [before]
    size = len(before)
    separator = ""
    for row in rows:
        text = separator + _encode(row)
        separator = ","
        held.append(text)
        size += len(text)
        if size >= PIECE:
            yield "".join(held).encode("ascii")
            held, size = [], 0
    held.append(after)
    yield "".join(held).encode("ascii")


def json_answer(parts: Iterator[bytes]) -> Response:
    """The answer of these pieces: one alone is sent with its length, more of them as they are made."""
    first = next(parts, b"")
    second = next(parts, None)
    body: Iterable[bytes] = [first] if second is None else chain((first, second), parts)
    return Response(body, content_type="application/json")
