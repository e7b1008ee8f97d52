"""The one exception that everything in `clio_client.config` raises."""

from __future__ import annotations

from os import PathLike


class ConfigError(Exception):
    """Something an operator configured cannot be used.

    `path` is the file, flag or environment variable, `line` the 1-based line in a file (None where
    there is none), `problem` what is wrong and `remedy` what to do. `str()` gives one line:
    ``PATH:LINE: problem. Remedy``.
    """

    def __init__(self, path: str | PathLike[str], problem: str, remedy: str, line: int | None = None) -> None:
        self.path = one_line(str(path))
        self.line = line
        self.problem = one_line(problem).rstrip(".")
        self.remedy = one_line(remedy)
        super().__init__(self.path, self.problem, self.remedy, self.line)

    def __eq__(self, other: object) -> bool:
        """Whether both say the same."""
        return isinstance(other, ConfigError) and self.args == other.args

    def __hash__(self) -> int:
        return hash(self.args)

    def __str__(self) -> str:
        where = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{where}: {self.problem}. {self.remedy}"


def one_line(text: str) -> str:
    """`text` as printable characters on one line: white space runs become a space, the rest is escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))


def quoted(value: object, limit: int = 80) -> str:
    """`value` in quotes for a message, cut to `limit` characters."""
    text = str(value)
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
