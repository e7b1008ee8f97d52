"""Typed reading of values that an operator wrote: each knows where it stands, and so does every error."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from clio_client.config import yamltree
from clio_client.config.errors import ConfigError, quoted
from clio_client.config.hostfile import check_host
from clio_client.config.yamltree import line_of

_DURATION = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?P<unit>ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0}
_TRUE, _FALSE = {"true", "yes", "on"}, {"false", "no", "off"}
_NULL, _TEXT = "tag:yaml.org,2002:null", "tag:yaml.org,2002:str"


def parse_duration(text: str) -> float | None:
    """Seconds of `3s`, `500ms`, `1m`, `2h` or a plain number of seconds; None when it is not one."""
    match = _DURATION.fullmatch(text.strip())
    return None if match is None else float(match["number"]) * _UNITS[match["unit"]]


@dataclass(frozen=True, slots=True)
class Field:
    """A value that an operator wrote, and where.

    In a file, `key` is its dotted path (`clusters[0].port`). What a flag or an environment variable gives has
    no key and no line; `source` names it. Relative paths start at `base`, a leading `~` stands for `home`.
    """

    node: yaml.Node
    source: str
    key: str
    base: Path
    home: Path

    @classmethod
    def root(cls, text: str, path: Path, home: Path | None = None) -> Field:
        """The whole of a settings file; relative paths start at its directory. Raises `ConfigError`."""
        node = yamltree.compose(text, str(path)) or yaml.ScalarNode(_NULL, "")
        return cls(node, str(path), "", path.parent.absolute(), home or Path.home())

    @classmethod
    def given(cls, value: object, source: str, home: Path | None = None) -> Field:
        """A value, or a list of them, that the flag or variable `source` gives."""
        items = value if isinstance(value, (list, tuple)) else None
        scalars = [yaml.ScalarNode(_TEXT, str(item)) for item in ([value] if items is None else items)]
        node = scalars[0] if items is None else yaml.SequenceNode(_TEXT, scalars)
        return cls(node, source, "", Path.cwd(), home or Path.home())

    @property
    def line(self) -> int | None:
        """The 1-based line the value starts in; None for what stands in no file."""
        return None if self.node.start_mark is None else line_of(self.node)

    @property
    def name(self) -> str:
        """The last part of the key, or the flag."""
        return self.source if self.line is None else self.key.rpartition(".")[2]

    @property
    def origin(self) -> str:
        """Where the value comes from, in words."""
        return self.source if self.line is None else f"{self.name} in {self.source}"

    @property
    def is_null(self) -> bool:
        """Whether the value is null or left out: the same as not giving the key."""
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag == _NULL

    def error(self, problem: str, remedy: str) -> ConfigError:
        """An error about this value; `problem` continues its name ("is empty")."""
        if self.line is not None:
            problem = f"{self.key or 'the file'} {problem}"
        return ConfigError(self.source, problem, remedy, line=self.line)

    def refusal(self, what: str, remedy: str) -> ConfigError:
        """An error that quotes the value; `what` continues it ("not a duration")."""
        value = quoted(self.text())
        return self.error(f"{value} is {what}" if self.line is None else f"is {value}, {what}", remedy)

    def mapping(self, known: Collection[str] | None = None) -> dict[str, Field]:
        """The values by key, without nulls. With `known`, any other key is an error with close matches."""
        if self.is_null:
            return {}
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(
                "is not a mapping",
                f"Write keys below it: {', '.join(known)}" if known else "Write 'key: value' lines",
            )
        fields: dict[str, Field] = {}
        for key_node, value_node in self.node.value:
            name = str(key_node.value)
            if known is not None and name not in known:
                raise ConfigError(
                    self.source,
                    f"unknown key {quoted(name)} in {self.key or 'the settings'}",
                    _close(name, known),
                    line=line_of(key_node),
                )
            value = replace(self, node=value_node, key=f"{self.key}.{name}" if self.key else name)
            if not value.is_null:
                fields[name] = value
        return fields

    def sequence(self) -> list[Field]:
        """The items of a list; of a flag, also of a text with commas."""
        if self.line is None and isinstance(self.node, yaml.ScalarNode):
            return [self.given(item, self.source, self.home) for item in self.node.value.split(",")]
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error("is not a list", "Write its items in lines that begin with '- ', or as [a, b]")
        return [
            replace(self, node=item, key=f"{self.key}[{index}]") for index, item in enumerate(self.node.value)
        ]

    def text(self) -> str:
        """A scalar as it is written, whatever type YAML would make of it; in a file it is not empty."""
        text = str(self.node.value).strip()
        if not isinstance(self.node, yaml.ScalarNode) or self.is_null or (self.line and not text):
            raise self.error(
                "is not a string", "Write one plain or quoted value; quote it when it contains ': '"
            )
        return text

    def integer(self, low: int, high: int, noun: str = "whole number") -> int:
        """A whole number from `low` to `high`."""
        text = self.text()
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            wanted = f"a {noun} from {low} to {high}"
            raise self.refusal(f"not {wanted}", f"Give {wanted}")
        return int(text)

    def boolean(self) -> bool:
        """true or false."""
        text = self.text().lower()
        if text not in _TRUE | _FALSE:
            raise self.refusal("neither true nor false", "Write true or false")
        return text in _TRUE

    def seconds(self, low: float, high: float) -> float:
        """A duration in seconds from `low` to `high` seconds."""
        value = parse_duration(self.text())
        if value is None or not low <= value <= high:
            raise self.refusal(
                f"not a duration from {low:g}s to {high:g}s",
                "Write a number with a unit, such as 3s, 500ms or 1m (no unit: seconds)",
            )
        return value

    def choice(self, allowed: Collection[str]) -> str:
        """One of `allowed`."""
        text = self.text()
        if text not in allowed:
            raise self.refusal(f"not one of {', '.join(allowed)}", _close(text, allowed))
        return text

    def host(self) -> str:
        """A host name or IPv4 address."""
        check_host(self.text(), self.source, self.line)
        return self.text()

    def path(self) -> Path:
        """A path, absolute or from `base`."""
        text = self.text()
        if text == "~" or text.startswith("~/"):
            return self.home / text[2:]
        # ~user of an unknown user, or of a name that is none: the file will be missing.
        with contextlib.suppress(RuntimeError, ValueError):
            return self.base / Path(text).expanduser()
        return self.base / text


def _close(name: str, known: Collection[str]) -> str:
    matches = difflib.get_close_matches(name, list(known), n=2)
    if matches:
        return f"Did you mean {' or '.join(matches)}?"
    return f"Use one of: {', '.join(known)}"
