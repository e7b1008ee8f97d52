"""What can be wrong with how the web server is configured."""

from __future__ import annotations

from os import PathLike


class WebConfigError(Exception):
    """A flag or the web configuration file cannot be used.

    ``path`` is the file or flag, ``line`` the 1-based line in a file (None where there is none). ``str()``
    gives one line: ``PATH:LINE: problem. Remedy``.
    """

    def __init__(self, path: str | PathLike[str], problem: str, remedy: str, line: int | None = None) -> None:
        self.path = printable(str(path))
        self.line = line
        self.problem = printable(problem).rstrip(".")
        self.remedy = printable(remedy)
        super().__init__(self.path, self.problem, self.remedy, self.line)

    def __str__(self) -> str:
        where = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{where}: {self.problem}. {self.remedy}"


def printable(text: str) -> str:
    """`text` on one line; what is no printable character is escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))


def quoted(value: object, limit: int = 80) -> str:
    """`value` in quotes for a message, cut to `limit` characters."""
    text = str(value)
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
