"""The search box's language: which nodes a text means. Pure functions.

A text of digits, commas and dashes selects by node id (`3`, `1-20`, `1,3,5`, `1-4,9`); any other text
selects nodes whose hostname or IP address contains it, without regard to case. Empty means all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MAX_LENGTH: Final = 256
MAX_PARTS: Final = 64

ACCEPTED: Final = (
    "give a node id (3), a range (1-20), a list (1,3,5), a mix (1-4,9), or a part of a hostname or IP "
    "address (letters, digits, '.', '-' and '_')"
)

_IDS = re.compile(r"[0-9,\- \t]+", re.ASCII)
_PART = re.compile(r"[ \t]*([0-9]{1,9})[ \t]*(?:-[ \t]*([0-9]{1,9})[ \t]*)?", re.ASCII)
_KEYWORD = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


class SearchError(ValueError):
    """The text is no search; the message says what is wrong and what is accepted."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"search: {problem}; {ACCEPTED}")


@dataclass(frozen=True, slots=True)
class Search:
    """A parsed search. At most one of the two is given; neither: every node.

    Attributes:
        ranges: inclusive ranges of node ids.
        keyword: lower-case text to look for in hostname and IP address.
    """

    ranges: tuple[tuple[int, int], ...] = ()
    keyword: str = ""

    def matches(self, node_id: int, names: Iterable[str | None]) -> bool:
        """Whether a node with this id and these names (hostname, addresses) is meant."""
        if self.ranges:
            return any(low <= node_id <= high for low, high in self.ranges)
        if self.keyword:
            return any(self.keyword in name.lower() for name in names if name)
        return True


def parse_search(text: str) -> Search:
    """The search a text stands for.

    Raises:
        SearchError: too long, a reversed range, an empty part, or characters no host name has.
    """
    if len(text) > MAX_LENGTH:
        raise SearchError(f"the text has {len(text)} characters, more than {MAX_LENGTH}")
    text = text.strip(" \t")
    if not text:
        return Search()
    if _IDS.fullmatch(text):
        return Search(ranges=_parse_ids(text))
    if not _KEYWORD.fullmatch(text):
        raise SearchError(f"{_shown(text)} has characters that no host name or address has")
    return Search(keyword=text.lower())


def _parse_ids(text: str) -> tuple[tuple[int, int], ...]:
    parts = text.split(",")
    if len(parts) > MAX_PARTS:
        raise SearchError(f"the list has {len(parts)} parts, more than {MAX_PARTS}")
    ranges = []
    for part in parts:
        match = _PART.fullmatch(part)
        if match is None:
            raise SearchError(f"{_shown(part)} is neither a node id nor a range")
        low = int(match[1])
        high = low if match[2] is None else int(match[2])
        if high < low:
            raise SearchError(f"the range {low}-{high} is reversed")
        ranges.append((low, high))
    return tuple(ranges)


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:39] + "...")
