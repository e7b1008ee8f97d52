"""The files that the kit is made from. In a checkout they are links to `grafana/` and `prometheus/`."""

from __future__ import annotations

from pathlib import Path

_FILES = Path(__file__).parent / "files"


def text(name: str) -> str:
    """The text of a file, by its path below `files`."""
    return (_FILES / name).read_text(encoding="utf-8")


def names(directory: str) -> list[str]:
    """Names of the JSON files in a directory below `files`, in order."""
    return sorted(path.name for path in (_FILES / directory).glob("*.json"))
