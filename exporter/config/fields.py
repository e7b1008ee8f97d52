"""Typed reading of a YAML node tree: every value knows its file, line and key, and so does every error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass

import yaml

from exporter.config.errors import ConfigError, quoted
from exporter.config.yamltree import line_of

_DURATION = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?P<unit>ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0}
_TRUE, _FALSE = {"true", "yes", "on"}, {"false", "no", "off"}


def parse_duration(text: str) -> float | None:
    """Seconds of `3s`, `500ms`, `1m`, `2h` or a plain number of seconds; None when it is not one."""
    match = _DURATION.fullmatch(text.strip())
    return None if match is None else float(match["number"]) * _UNITS[match["unit"]]


@dataclass(frozen=True, slots=True)
class Field:
    """A value of the settings file: `key` is its dotted path (`clusters[0].port`)."""

    node: yaml.Node
    source: str
    key: str

    @property
    def line(self) -> int:
        """The 1-based line the value starts in."""
        return line_of(self.node)

    @property
    def is_null(self) -> bool:
        """Whether the value is null or left out: the same as not giving the key."""
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag == "tag:yaml.org,2002:null"

    def error(self, problem: str, remedy: str) -> ConfigError:
        """An error about this value; `problem` continues its key ("is ...")."""
        return ConfigError(self.source, f"{self.key or 'the file'} {problem}", remedy, line=self.line)

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
            field = Field(value_node, self.source, f"{self.key}.{name}" if self.key else name)
            if not field.is_null:
                fields[name] = field
        return fields

    def sequence(self) -> list[Field]:
        """The items of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error("is not a list", "Write its items in lines that begin with '- ', or as [a, b]")
        return [
            Field(item, self.source, f"{self.key}[{index}]") for index, item in enumerate(self.node.value)
        ]

    def text(self) -> str:
        """A non-empty scalar as it is written, whatever type YAML would make of it."""
        if not isinstance(self.node, yaml.ScalarNode) or self.is_null or not self.node.value.strip():
            raise self.error(
                "is not a string", "Write one plain or quoted value; quote it when it contains ': '"
            )
        return str(self.node.value).strip()

    def integer(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        text = self.text()
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise self.error(
                f"is {quoted(text)}, not a whole number from {low} to {high}",
                f"Give a whole number from {low} to {high}",
            )
        return int(text)

    def boolean(self) -> bool:
        """true or false."""
        text = self.text().lower()
        if text not in _TRUE | _FALSE:
            raise self.error(f"is {quoted(text)}, neither true nor false", "Write true or false")
        return text in _TRUE

    def seconds(self, low: float, high: float) -> float:
        """A duration in seconds from `low` to `high` seconds."""
        text = self.text()
        value = parse_duration(text)
        if value is None or not low <= value <= high:
            raise self.error(
                f"is {quoted(text)}, not a duration from {low:g}s to {high:g}s",
                "Write a number with a unit, such as 3s, 500ms or 1m (no unit: seconds)",
            )
        return value

    def choice(self, allowed: Collection[str]) -> str:
        """One of `allowed`."""
        text = self.text()
        if text not in allowed:
            raise self.error(f"is {quoted(text)}, not one of {', '.join(allowed)}", _close(text, allowed))
        return text


def _close(name: str, known: Collection[str]) -> str:
    matches = difflib.get_close_matches(name, list(known), n=2)
    if matches:
        return f"Did you mean {' or '.join(matches)}?"
    return f"Use one of: {', '.join(known)}"
