"""Writes what documents and rules take from the code (`make docs`); --check only says what is stale.

docs/metrics.md, prometheus/rules/*.yml and contrib/man are made as a whole; Dockerfile gets the version.
Tables of settings stand in their pages between `<!-- settings: NAME -->` and `<!-- end of settings -->`,
those of rules the same way. A runbook ends with what was done to see that its alert stays silent.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from argparse_manpage.manpage import Manpage

from clio_client import __version__
from clio_client.config.settings import CLUSTER, RUNTIME
from clio_client.config.table import reference
from clio_control_api import cli as control_api
from clio_control_api.settings import ALERTMANAGER, LIMITS, SETTINGS, SSH
from clio_exporter import cli as exporter
from clio_exporter.collectors import reference as metrics
from clio_exporter.flags import LOG, SD, WEB
from clio_exporter.kit import rules
from clio_exporter.kit.rules import reference as alerting
from clio_exporter.settings import COLLECTOR, LABELS, PROBE
from scripts.alert_trials import Trials

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
RULES = ROOT / "prometheus" / "rules"
TRIALS = Trials.read()
TABLES = {
    "clusters": reference(CLUSTER),
    "runtime": reference(RUNTIME),
    "collectors": reference(COLLECTOR),
    "probe": reference(PROBE),
    "labels": reference(LABELS),
    "discovery by file": reference(SD),
    "flags of HTTP and logs": reference((*WEB, *LOG)),
    "control API": reference(SETTINGS),
    "limits": reference(LIMITS, "limits."),
    "alertmanager": reference(ALERTMANAGER, "alertmanager."),
    "ssh": reference(SSH),
    "alerts": alerting.alerts_table(),
    "thresholds": alerting.thresholds_table(),
    "recorded series": alerting.series_table(),
    "silent": TRIALS.silent_table(),
    "seen": TRIALS.seen_table(),
}
MANUALS = (
    (exporter.whole_parser, "Prometheus exporter for clusters of the CLIO runtime"),
    (control_api.whole_parser, "shuts down and restarts nodes of the CLIO runtime, over HTTP and SSH"),
)
_MARKED = re.compile(
    r"(<!-- (?:settings|rules): (.*?) -->\n)(.*?)(<!-- end of (?:settings|rules) -->\n)", re.DOTALL
)


def pages() -> Iterator[tuple[Path, str]]:
    """Every file that the code has a part in, as it ought to be."""
    for name, text in rules.render().items():
        yield RULES / name, text
    yield DOCS / "metrics.md", metrics.render()
    for parser, what in MANUALS:
        made = parser()
        yield ROOT / "contrib" / "man" / f"{made.prog}.1", manual(made, what)
    images = ROOT / "Dockerfile"
    label = rf'\g<1>"{__version__}"'
    yield images, re.sub(r'(image\.version=)"[^"]*"', label, images.read_text(encoding="utf-8"))
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if path.name == "runbooks.md":
            yield path, TRIALS.runbooks(text)
        elif _MARKED.search(text):
            yield path, _MARKED.sub(lambda match: f"{match[1]}{TABLES[match[2]]}{match[4]}", text)


def manual(parser: argparse.ArgumentParser, what: str) -> str:
    """The manual page of a program: the same on every terminal and day."""
    for each in _parsers(parser):
        # Versions of Python write usages in different ways, and as wide as the terminal is.
        each.usage = f"{each.prog} [OPTION ...]"
        each.formatter_class = _Wide
    # The list of commands has its own section.
    parser.description = (parser.description or "").partition("\n  ")[0]
    parser.usage = f"{parser.prog} [OPTION ...] | {parser.prog} COMMAND [OPTION ...]"
    data = {
        "project_name": "clio-exporter",
        "version": __version__,
        "description": what,
        "manual_title": "clio-exporter",
        "date": " ",
    }
    return "".join(f"{line.rstrip()}\n" for line in str(Manpage(parser, data)).splitlines())


class _Wide(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _parsers(below)


def _current(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def main() -> int:
    """Write the pages, or say which are out of date; returns the exit status."""
    stale = [(path, text) for path, text in pages() if _current(path) != text]
    for path, text in stale:
        if "--check" in sys.argv[1:]:
            print(f"{path.name} is out of date: run make docs")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return 1 if stale and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
