"""Writes what the documentation takes from the code (`make docs`); with --check only says what is stale.

docs/metrics.md is made as a whole. Tables of settings stand in their pages between
`<!-- settings: NAME -->` and `<!-- end of settings -->`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from clio_client.config.settings import CLUSTER, RUNTIME
from clio_client.config.table import reference
from clio_control_api.settings import LIMITS, SETTINGS, SSH
from clio_exporter.collectors import reference as metrics
from clio_exporter.flags import LOG, WEB
from clio_exporter.settings import COLLECTOR, PROBE

DOCS = Path(__file__).parent.parent / "docs"
TABLES = {
    "clusters": reference(CLUSTER),
    "runtime": reference(RUNTIME),
    "collectors": reference(COLLECTOR),
    "probe": reference(PROBE),
    "flags of HTTP and logs": reference((*WEB, *LOG)),
    "control API": reference(SETTINGS),
    "limits": reference(LIMITS, "limits."),
    "ssh": reference(SSH),
}
_MARKED = re.compile(r"(<!-- settings: (.*?) -->\n)(.*?)(<!-- end of settings -->\n)", re.DOTALL)


def pages() -> Iterator[tuple[Path, str]]:
    """Every page that the code has a part in, as it ought to be."""
    yield DOCS / "metrics.md", metrics.render()
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if _MARKED.search(text):
            yield path, _MARKED.sub(lambda match: f"{match[1]}{TABLES[match[2]]}{match[4]}", text)


def main() -> int:
    """Write the pages, or say which are out of date; returns the exit status."""
    stale = [(path, text) for path, text in pages() if path.read_text(encoding="utf-8") != text]
    for path, text in stale:
        if "--check" in sys.argv[1:]:
            print(f"{path.name} is out of date: run make docs")
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if stale and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
