"""Whether runtimes are configured alike: a digest of what nodes of one cluster have in common.

Left out is what is rightly each node's own: where it keeps its files, the port that its entry in the hostfile
names too, the namespace of its shared memory, and what the settings name besides.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Final

OWN: Final = ("networking.port", "viz.port", "viz.bind", "runtime.ipc_namespace")
"""Paths whose values are each node's own."""

FILE: Final = r"[~/$]|\.{1,2}/|[^:\s]*/"
"""Regular expression of how a value begins that is the path of a file."""

_FILE = re.compile(FILE)


def digest(entries: Iterable[tuple[str, str]], own: Sequence[str] = ()) -> str:
    """SHA-256, in hexadecimal, of (path, value) pairs; layout and comments do not count.

    ``own`` are paths that are left out; ``*`` in them stands for anything. Of a value that is the path of a
    file only that it is one counts.
    """
    left_out = re.compile("|".join(re.escape(path).replace(r"\*", ".*") for path in (*OWN, *own)))
    text = "".join(
        f"{path}\0{'/' if _FILE.match(value) else value}\0"
        for path, value in sorted(entries)
        if not left_out.fullmatch(path)
    )
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
