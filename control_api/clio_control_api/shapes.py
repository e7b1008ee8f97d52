"""Whether what was read from a file has the types that a dataclass declares: JSON has any value anywhere."""

from __future__ import annotations

import functools
import types
from dataclasses import fields
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

_R = TypeVar("_R")
_MOST: Final = 2**63
"""No clock, counter or id is beyond; JSON knows larger numbers than any float."""


def checked(record: _R) -> _R:
    """The record, a dataclass, if each of its values is of its field's type; numbers are finite.

    Raises:
        ValueError: one is not; names the field.
    """
    kind: Any = type(record)
    for name, hint in _hints(kind).items():
        if not fits(getattr(record, name), hint):
            raise ValueError(f"{name} of {type(record).__name__} has a value of another type")
    return record


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def fits(value: object, hint: Any) -> bool:
    """Whether a value is of a type: a class, a union of some, or a tuple of any length."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(fits(value, one) for one in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(fits(each, get_args(hint)[0]) for each in value)
    if hint in (int, float):
        kinds = (int,) if hint is int else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and abs(value) < _MOST
    return isinstance(value, hint)
