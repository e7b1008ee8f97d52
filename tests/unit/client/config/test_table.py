"""The mechanism of the settings' tables, apart from what is in them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import pytest

from clio_client.config import table
from clio_client.config.errors import ConfigError
from clio_client.config.fields import Field
from clio_client.config.table import setting


@dataclass(frozen=True)
class Things:
    size: int = setting(3, table.integer(1, 9), "how many")
    wait_seconds: float = setting(1.5, table.duration(0, 10), "how long", key="wait.time", more="Or not.")
    where: Path | None = setting(None, table.PATH, "which file", variable=False)
    loud: bool = setting(False, table.BOOLEAN, "100% of it", key="")
    names: tuple[str, ...] = setting(tuple, table.TEXT, "whose", flag=False)
    kept: str = "not a setting"


THINGS = table.table_of(Things, flags="--thing.", variables="THING_")


def section(text: str) -> Field:
    return Field.root(text, Path("/etc/x.yml"), Path("/home/me"))


def test_a_table_names_keys_flags_and_variables() -> None:
    assert [(entry.key, entry.flag, entry.variable) for entry in THINGS] == [
        ("size", "--thing.size", "THING_SIZE"),
        ("wait.time", "--thing.wait.time", "THING_WAIT_SECONDS"),
        ("where", "--thing.where", ""),
        ("", "--thing.loud", "THING_LOUD"),
        ("names", "", "THING_NAMES"),
    ]


def test_flags_come_before_variables_before_the_file() -> None:
    parser = argparse.ArgumentParser()
    table.add_arguments(parser, THINGS)
    assert "100% of it" in parser.format_help()
    assert "how long (default 1.5s)" in parser.format_help()
    args = vars(parser.parse_args(["--thing.size", "5", "--thing.loud"]))
    env = {"THING_SIZE": "6", "THING_WAIT_SECONDS": "2s", "THING_NAMES": ""}
    file = table.fields_of(THINGS, section("size: 7\nwait: {time: 3s}\nwhere: ~/y"))
    made = table.updated(Things(), THINGS, {**file, **table.given(THINGS, args, env)})
    assert made == Things(5, 2.0, Path("/home/me/y"), True)
    assert table.updated(Things(), THINGS, file) == Things(7, 3.0, Path("/home/me/y"))


def test_what_is_not_given_has_its_default() -> None:
    assert table.resolved(THINGS, {}) == {
        "size": 3, "wait_seconds": 1.5, "where": None, "loud": False, "names": (),
    }  # fmt: skip
    assert table.fields_of(THINGS, None) == {}


@pytest.mark.parametrize(
    ("flags", "env", "message"),
    [
        (
            {"thing_size": "x"},
            {},
            "^--thing.size: 'x' is not a whole number from 1 to 9. Give",
        ),
        ({"thing_wait_time": 11.0}, {}, "^--thing.wait.time: '11.0' is not a duration from 0s to 10s"),
        ({}, {"THING_SIZE": "0"}, "^THING_SIZE: '0' is not a whole number"),
        ({}, {"THING_LOUD": "perhaps"}, "^THING_LOUD: 'perhaps' is neither true nor false"),
    ],
)
def test_errors_name_flag_or_variable(flags: dict[str, object], env: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        table.read(THINGS, table.given(THINGS, flags, env))


def test_a_key_below_a_key_is_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"^/etc/x.yml:2: unknown key 'tim' in wait. Did you mean time\?"):
        table.fields_of(THINGS, section("size: 1\nwait: {tim: 3s}"))
    assert set(table.fields_of(THINGS, section("other: {}\nsize: 1"), ("other",))) == {"other", "size"}


def test_the_reference_leaves_empty_columns_out() -> None:
    assert table.reference(THINGS[:2], "things.") == (
        "| key | flag | default | meaning |\n"
        "| --- | --- | --- | --- |\n"
        "| `things.size` | `--thing.size` | `3` | how many (1 to 9) |\n"
        "| `things.wait.time` | `--thing.wait.time` | `1.5s` | how long (0 s to 10 s). Or not. |\n"
    )
    assert table.reference(THINGS[3:4]).startswith("| flag | default | meaning |\n")
