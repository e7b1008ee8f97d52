"""What a check finds, and how findings are printed."""

from __future__ import annotations

import enum
import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from clio_client import __version__

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1

_WIDTH: Final = 110
_SHOWN_NODES: Final = 8


class Status(enum.Enum):
    """How bad a finding is; in this order, the worst last."""

    SKIPPED = "skipped"
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check has seen.

    Attributes:
        check: name of the check.
        seen: what was seen, in words.
        remedy: what to do; "" where there is nothing to do.
    """

    check: str
    status: Status
    seen: str
    remedy: str = ""


def worst(findings: Iterable[Finding]) -> Status:
    """The worst status among the findings."""
    order = list(Status)
    return max((finding.status for finding in findings), key=order.index, default=Status.SKIPPED)


def exit_status(findings: Iterable[Finding]) -> int:
    """1 where something fails; a warning alone is no failure."""
    return EXIT_FAILED if worst(findings) is Status.FAIL else EXIT_OK


def as_json(findings: Sequence[Finding]) -> str:
    """All findings as one document."""
    rows = [
        {"check": f.check, "status": f.status.value, "seen": f.seen, "remedy": f.remedy} for f in findings
    ]
    document = {"version": __version__, "status": worst(findings).value, "findings": rows}
    return json.dumps(document, indent=2) + "\n"


def as_text(findings: Sequence[Finding]) -> str:
    """A paragraph a finding, for people; at the end how many there are of each status."""
    column = max((len(finding.check) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lead = f"{finding.status.value:<8} {finding.check:<{column}}  "
        blank = " " * len(lead)
        lines.append(_wrapped(finding.seen, lead, blank))
        if finding.remedy:
            lines.append(_wrapped(finding.remedy, f"{blank}-> ", f"{blank}   "))
    counts = [(status, sum(f.status is status for f in findings)) for status in reversed(Status)]
    lines.append("\n" + ", ".join(f"{count} {status.value}" for status, count in counts if count))
    return "\n".join(lines) + "\n"


def named(names: Sequence[str]) -> str:
    """The names, shortened where they are many."""
    if len(names) <= _SHOWN_NODES:
        return ", ".join(names)
    return f"{', '.join(names[:_SHOWN_NODES])} and {len(names) - _SHOWN_NODES} more"


def _wrapped(text: str, first: str, next_ones: str) -> str:
    return textwrap.fill(
        text, _WIDTH, initial_indent=first, subsequent_indent=next_ones, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
