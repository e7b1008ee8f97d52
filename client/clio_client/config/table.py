"""Settings as a table: one entry gives the key, flag, variable, bounds, default, help and documentation.

A section of settings is a frozen dataclass whose fields are declared by `setting`; `table_of` is its table.
Whoever has no dataclass of its own to declare writes `Setting`s down.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from clio_client.config.fields import Field

_T = TypeVar("_T")
Table = tuple["Setting", ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of value: how it is read, and what is said about it.

    Attributes:
        read: the typed value; raises `ConfigError` where it is none.
        metavar: what stands for it in help.
        bounds: in words, for the documentation.
        choices: all values there are.
        action: argparse's, where the flag is not one text.
    """

    read: Callable[[Any], Any]
    metavar: str = "TEXT"
    bounds: str = ""
    choices: tuple[str, ...] = ()
    action: str = "store"


def integer(low: int, high: int, noun: str = "whole number", metavar: str = "N") -> Kind:
    """A whole number."""
    return Kind(lambda value: value.integer(low, high, noun), metavar, f"{low} to {high}")


def port(low: int, high: int) -> Kind:
    """A port."""
    return integer(low, high, "port", "PORT")


def duration(low: float, high: float) -> Kind:
    """A time in seconds."""
    return Kind(lambda value: value.seconds(low, high), "DURATION", f"{low:g} s to {high:g} s")


def choice(*allowed: str) -> Kind:
    """One of a few texts."""
    return Kind(lambda value: value.choice(allowed), choices=allowed)


BOOLEAN = Kind(lambda value: value.boolean(), action="store_true")
TEXT = Kind(lambda value: value.text())
HOST = Kind(lambda value: value.host(), "ADDRESS")
PATH = Kind(lambda value: value.path(), "FILE")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        name: attribute it is kept in.
        key: dotted path in its section of the file; "" where no file has it.
        flag, variable: "" where there is none.
        shown: the default in words, where it is not a plain value.
        more: what only the documentation says.
    """

    name: str
    kind: Kind
    default: Any
    help: str
    key: str = ""
    flag: str = ""
    variable: str = ""
    shown: str = ""
    more: str = ""

    @property
    def dest(self) -> str:
        """Attribute of parsed arguments."""
        return re.sub(r"\W", "_", self.flag[2:])

    @property
    def default_text(self) -> str:
        """The default as an operator would write it."""
        if self.shown or self.default in (None, "", (), {}):
            return self.shown
        if isinstance(self.default, float):
            return f"{self.default:g}s"
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)


def setting(default: Any, kind: Kind, help: str, **more: Any) -> Any:
    """A dataclass field that is a setting.

    `default` may be the type of an empty container. `more` are attributes of `Setting`; `flag` and
    `variable` may be False (none), `key` is by default the field's name.
    """
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata={"setting": (kind, default(), help, more)})
    return dataclasses.field(default=default, metadata={"setting": (kind, default, help, more)})


def table_of(section: type, flags: str | None = None, variables: str | None = None) -> Table:
    """The table of a dataclass.

    `flags` and `variables` begin the names of its flags (`--runtime.`) and variables; without them a
    setting has none, unless it names its own.
    """

    def entries() -> Iterator[Setting]:
        for field in dataclasses.fields(section):
            if "setting" not in field.metadata:
                continue
            kind, default, text, more = field.metadata["setting"]
            key = more.get("key", field.name)
            made = {
                "key": key,
                "flag": "" if flags is None else flags + (key or field.name).replace("_", "-"),
                "variable": "" if variables is None else variables + field.name.upper(),
            }
            made |= {attribute: value or "" for attribute, value in more.items()}
            yield Setting(field.name, kind, default, text, **made)

    return tuple(entries())


def fields_of(table: Table, section: Field | None, others: Iterable[str] = ()) -> dict[str, Field]:
    """What a section of a file says, by the settings' names; keys but these and `others` are errors."""
    names = {entry.key: entry.name for entry in table if entry.key} | {key: key for key in others}
    return {} if section is None else {names[key]: field for key, field in _flat(section, list(names))}


def _flat(section: Field, keys: list[str]) -> Iterator[tuple[str, Field]]:
    for name, field in section.mapping(dict.fromkeys(key.partition(".")[0] for key in keys)).items():
        below = [key.partition(".")[2] for key in keys if key.startswith(f"{name}.")]
        if below:
            yield from ((f"{name}.{key}", value) for key, value in _flat(field, below))
        else:
            yield name, field


def given(
    table: Table, flags: Mapping[str, Any], env: Mapping[str, str] | None = None, home: Path | None = None
) -> dict[str, Field]:
    """What flags (by `dest`; None: not given) and variables say, by the settings' names; flags come first."""
    found: dict[str, Field] = {}
    home = home or Path.home()
    for entry in table:
        if entry.flag and flags.get(entry.dest) is not None:
            found[entry.name] = Field.given(flags[entry.dest], entry.flag, home=home)
        elif entry.variable and env and env.get(entry.variable):
            found[entry.name] = Field.given(env[entry.variable], entry.variable, home=home)
    return found


def read(table: Table, values: Mapping[str, Field]) -> dict[str, Any]:
    """The typed values. Raises `ConfigError`."""
    return {entry.name: entry.kind.read(values[entry.name]) for entry in table if entry.name in values}


def resolved(table: Table, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The typed values of parsed arguments, the defaults of those not given. Raises `ConfigError`."""
    return {entry.name: entry.default for entry in table} | read(table, given(table, flags))


def updated(section: _T, table: Table, values: Mapping[str, Field]) -> _T:
    """`section` with these values over its own. Raises `ConfigError`."""
    return dataclasses.replace(section, **read(table, values))  # type: ignore[type-var]


def add_arguments(parser: argparse._ActionsContainer, table: Iterable[Setting]) -> None:
    """The flags of a table. What is not given is None."""
    for entry in table:
        if not entry.flag:
            continue
        kind = entry.kind
        options: dict[str, Any] = {"dest": entry.dest, "action": kind.action, "default": None}
        if kind.choices:
            options["choices"] = kind.choices
        elif kind.action != "store_true":
            options["metavar"] = kind.metavar
        default = f" (default {entry.default_text})" if entry.default_text and kind is not BOOLEAN else ""
        parser.add_argument(entry.flag, help=(entry.help + default).replace("%", "%%"), **options)


def reference(table: Table, section: str = "") -> str:
    """The table in Markdown. Keys begin with `section`; the columns are those that something stands in."""
    rows = [_row(entry, section) for entry in table]
    columns = [name for name in rows[0] if name in ("default", "meaning") or any(row[name] for row in rows)]
    lines = [columns, ["---"] * len(columns), *([row[name] for name in columns] for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _row(entry: Setting, section: str) -> dict[str, str]:
    code = {"key": entry.key and section + entry.key, "flag": entry.flag}
    default = entry.shown.strip() or (entry.default_text and f"`{entry.default_text}`")
    values = entry.kind.bounds or ", ".join(f"`{value}`" for value in entry.kind.choices)
    meaning = entry.help + (f" ({values})" if values else "") + (f". {entry.more}" if entry.more else "")
    return {
        **{name: text and f"`{text}`" for name, text in code.items()},
        "default": default,
        "meaning": meaning,
    }
