"""Values of the types that dataclasses declare."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest

from clio_control_api.shapes import checked, fits


@dataclass(frozen=True)
class Inner:
    number: int = 1


@dataclass(frozen=True)
class Outer:
    text: str = "a"
    flag: bool = True
    seconds: float | None = None
    inner: Inner = Inner()
    many: tuple[int, ...] | None = (1, 2)


@pytest.mark.parametrize(
    "record", [Outer(), Outer(seconds=1), Outer(seconds=1.5), Outer(many=None), Outer(many=()), Inner(2**62)]
)
def test_what_fits_is_given_back(record: object) -> None:
    assert checked(record) is record


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", 1), ("text", None), ("flag", 1), ("flag", "true"), ("seconds", "1"), ("seconds", True),
        ("seconds", math.nan), ("seconds", math.inf), ("seconds", 10**400), ("inner", {"number": 1}),
        ("many", [1]), ("many", (1, "2")), ("many", (True,)),
    ],
)  # fmt: skip
def test_what_does_not_is_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{field} of Outer"):
        checked(Outer(**{field: value}))


def test_numbers() -> None:
    assert fits(0, int)
    assert fits(-1, float)
    assert not fits(1.0, int)
    assert not fits(2**63, int)
    assert not fits(-(2**63), int)
