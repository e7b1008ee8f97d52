"""Strict reading of a YAML mapping with the line of every key, for errors that name the place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import yaml

from clio_web.errors import WebConfigError, quoted

_MAX_DEPTH = 32


@dataclass(frozen=True)
class Section:
    """One mapping of the document: where it stands and its keys, each with node and line."""

    path: Path
    name: str
    line: int | None
    items: dict[str, tuple[yaml.Node, int]]

    def fail(self, problem: str, remedy: str, key: str | None = None) -> NoReturn:
        """Raise a WebConfigError at the line of `key`, or at the section's own."""
        line = self.items[key][1] if key in self.items else self.line
        raise WebConfigError(self.path, problem, remedy, line)

    def full(self, key: str) -> str:
        """The key with the section's name before it, as messages show it."""
        return f"{self.name}.{key}" if self.name else key

    def only(self, known: tuple[str, ...]) -> None:
        """Refuse keys outside `known`."""
        for key in self.items:
            if key not in known:
                self.fail(
                    f"unknown key {quoted(self.full(key))}",
                    f"Remove it or use one of: {', '.join(known)}",
                    key,
                )

    def has(self, key: str) -> bool:
        """Whether the key is present with a value other than null."""
        return key in self.items and not _is_null(self.items[key][0])

    def text(self, key: str, default: str = "") -> str:
        """A scalar as the text that stands in the file (a number or boolean is not converted)."""
        if not self.has(key):
            return default
        node = self.items[key][0]
        if not isinstance(node, yaml.ScalarNode):
            self.fail(f"{self.full(key)} is not a string", "Give a single value", key)
        return str(node.value)

    def flag(self, key: str, default: bool) -> bool:
        """A boolean."""
        if not self.has(key):
            return default
        node = self.items[key][0]
        if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:bool":
            self.fail(f"{self.full(key)} is not a boolean", "Write true or false", key)
        return str(node.value).lower() in ("true", "yes", "on")

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        if not self.has(key):
            return []
        node = self.items[key][0]
        if not isinstance(node, yaml.SequenceNode):
            self.fail(f"{self.full(key)} is not a list", "Write one entry a line, each after a dash", key)
        values = []
        for entry in node.value:
            if not isinstance(entry, yaml.ScalarNode) or _is_null(entry):
                self.fail(f"{self.full(key)} has an entry that is not a string", "Give single values", key)
            values.append(str(entry.value))
        return values

    def section(self, key: str) -> Section:
        """A nested mapping; absent or null is an empty one."""
        if not self.has(key):
            return Section(self.path, self.full(key), self.line, {})
        node, line = self.items[key]
        return _section(self.path, self.full(key), node, line)


def load_document(path: Path) -> Section:
    """Read the file as one mapping (an empty file is an empty mapping). Raises WebConfigError."""
    text = read_file(path, "the web configuration file").decode("utf-8", errors="surrogateescape")
    try:
        _check_depth(path, text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # Not str(error): it quotes the line, which may hold a key or a password hash.
        problem = getattr(error, "problem", None) or "unreadable characters"
        line = mark.line + 1 if mark is not None else None
        raise WebConfigError(
            path, f"not valid YAML: {problem}", "Correct the syntax at this place", line
        ) from None
    if node is None or _is_null(node):
        return Section(path, "", None, {})
    return _section(path, "", node, node.start_mark.line + 1)


def _check_depth(path: Path, text: str) -> None:
    """Refuse deep nesting before composing, which recurses."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise WebConfigError(
                    path,
                    f"nested more than {_MAX_DEPTH} levels deep",
                    "Nothing in a web configuration is; correct the brackets or the indentation",
                    event.start_mark.line + 1 if event.start_mark is not None else None,
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def read_file(path: Path, what: str, fail: Callable[[str, str], NoReturn] | None = None) -> bytes:
    """The file's content; `fail(problem, remedy)` raises at the place that names the file."""
    try:
        return path.read_bytes()
    except OSError as error:
        problem = f"cannot read {what} {quoted(path, 300)}: {error.strerror or error}"
        remedy = "Check the path and that the exporter's user may read it"
        if fail is not None:
            fail(problem, remedy)
        raise WebConfigError(path, problem, remedy) from None


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _section(path: Path, name: str, node: yaml.Node, line: int) -> Section:
    if not isinstance(node, yaml.MappingNode):
        raise WebConfigError(
            path, f"{name or 'the document'} is not a mapping", "Write it as `key: value` lines", line
        )
    items: dict[str, tuple[yaml.Node, int]] = {}
    for key_node, value in node.value:
        key_line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise WebConfigError(
                path, f"a key of {name or 'the document'} is not a string", "Use plain keys", key_line
            )
        key = str(key_node.value)
        if key in items:
            raise WebConfigError(path, f"key {quoted(key)} is given twice", "Keep one of them", key_line)
        items[key] = (value, key_line)
    return Section(path, name, line, items)
