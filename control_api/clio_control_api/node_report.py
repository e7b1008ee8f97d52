"""What a node's script tells the control API, apart from what the runtime's own commands print.

Its lines stand on standard error and begin with ``#clio-ID``, ID being the action's own, which only the
script knows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from clio_control_api.node_script import printable

Ending = Literal["running", "succeeded", "failed", "lost"]

_NOTE: Final = re.compile(
    r"(?P<id>[0-9a-f]{1,32}) (?P<action>[a-z]+) (?P<actor>\S+) (?P<host>\S+) (?P<since>[0-9]{1,12})"
    r"(?: (?P<step>.*))?"
)
_RESULT: Final = re.compile(r"(?P<state>succeeded|failed) (?P<seconds>[0-9]{1,9}) (?P<text>.*)")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a node's lock: `actor` by the control API on `host`, for `seconds`; `step` may be ""."""

    id: str
    action: str
    actor: str
    host: str
    seconds: int
    step: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What the script told.

    Attributes:
        started: a restart's sequence is on its way.
        busy: another action holds the lock; `holder` says which, if that has left a note.
        unlocked: the node has no usable lock, and nothing was done.
        ending: of a restart that was asked for: lost when it neither runs nor has left a result.
        text: the step under way, or what came of it.
        stderr: all other lines.
    """

    started: bool = False
    busy: bool = False
    holder: Holder | None = None
    unlocked: bool = False
    ending: Ending | None = None
    text: str = ""
    stderr: str = ""


def read_report(stderr: bytes, action_id: str) -> Report:
    """The report in a script's standard error; what is not of its form is left out."""
    others: list[str] = []
    found: dict[str, str] = {}
    for line in printable(stderr).splitlines(keepends=True):
        mark, _, rest = line.partition(" ")
        if mark == f"#clio-{action_id}":
            word, _, text = rest.rstrip("\n").partition(" ")
            found[word] = text
        else:
            others.append(line)
    ending, text = _ending(found)
    return Report(
        started="started" in found, busy="busy" in found, holder=_holder(found.get("busy", "")),
        unlocked="unlocked" in found, ending=ending, text=text, stderr="".join(others),
    )  # fmt: skip


def _ending(found: dict[str, str]) -> tuple[Ending | None, str]:
    result = _RESULT.fullmatch(found.get("ended", ""))
    if result is not None:
        return ("succeeded" if result["state"] == "succeeded" else "failed"), result["text"]
    if "running" in found:
        return "running", found["running"]
    return ("lost" if "lost" in found else None), ""


def _holder(text: str) -> Holder | None:
    """From the node's clock and the lock's note, so that clocks of two hosts are never compared."""
    now, _, note = text.strip().partition(" ")
    found = _NOTE.fullmatch(note)
    if found is None or not (now.isascii() and now.isdigit() and len(now) <= 12):
        return None
    seconds = max(0, int(now) - int(found["since"]))
    step = "" if found["step"] in (None, found["action"]) else found["step"]
    return Holder(found["id"], found["action"], found["actor"], found["host"], seconds, step)
