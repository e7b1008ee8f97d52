"""Damage to inputs, drawn from a seeded generator: the same seed makes the same inputs."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Sequence
from typing import Any, Final

MAX_BYTES: Final = 16 * 1024
"""Of an input; that longer ones are refused is what the tests of each limit see to."""

PARTS: Final = b"\n---\n"
"""Between the parts of an input that has several."""

_NUMBERS: Final = (
    0,
    1,
    2,
    7,
    255,
    256,
    1024,
    65535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
_WIDTHS: Final = (("<B", 8), ("<H", 16), (">H", 16), ("<I", 32), (">I", 32), ("<Q", 64), (">Q", 64))

ODD: Final[tuple[bytes, ...]] = (
    b"\x00", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\x85", b"\xc2\x85",
    b"\xe2\x80\xa8", b"\r", b"\n", b"\r\n", b"\t", b" ", b"\x0b", b"\x0c", b"\x1c", b"\x7f", b"\x1b[0m",
    "²".encode(), "٣".encode(), "\U0001d7db".encode(), "é".encode(), "İ".encode(), "\u202e".encode(),
    b"9" * 5000, b"1" + b"0" * 400, b"1e999", b"-1e999", b"NaN", b"Infinity", b"-Infinity", b"nan",
    b"inf", b"+Inf", b"-0", b"-1", b"0x10", b"1_0", b"0o7", b"1e-999", b"01", b"1.", b".5", b"4294967296",
    b"18446744073709551616", b"null", b"true", b"false", b"{}", b"[]", b'""', b"[" * 1100,
    b'{"a":' * 1100, b"{" * 1100, b"(" * 500, b'"\\ud800"', b'\\ud800', b"\\", b'\\"', b"'", b'"', b"`",
    b"%00", b"%ff", b"%", b"%2", b"%zz", b"%2f", b"+", b"&", b"=", b"?", b"#", b";", b",", b":", b"::",
    b"|", b"*", b"**", b"!", b"~", b"~nobody", b"~root/x", b"@", b"/", b"//", b"../", b"-", b"--", b"[",
    b"]", b"[::1]", b"[::1%eth0]", b"[::ffff:1.2.3.4]:80", b"::1", b"1.2.3.4", b"0.0.0.0:0", b"256.1.1.1",
    b"a.b.", b"[1-3]", b"[3-1]", b"[0-999999999]", b"[1,,2]", b"1-4,9", b"0-65535", b"&a ", b"*a",
    b"<<: ", b"? ", b"- ", b": ", b"|\n", b">\n", b"---\n", b"...\n", b"%YAML 9.9\n", b"!!int ",
    b"!!float ", b"!!binary ", b"!!set ", b"!!omap ", b"!!pairs ", b"!!timestamp ",
    b"!!python/object:os.system ", b"!!map ", b"!!seq ", b"!!str ", b"!!bool ", b"!!null ", b"!x ",
    b"2001-01-01", b"1:30:00", b".inf", b".nan", b"yes", b"\xc1", b"\xd4\xff", b"\xc7\xff\xff",
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 1100,
    b"\x81" * 1100, b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00", b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
    b"\xd6\xff\x00\x00\x00\x00", b"\xc0", b"\xc2", b"\xc3", b"\x90", b"\x80",
)  # fmt: skip
"""What decoders trip over, in one format or another."""


ODD_VALUES: Final = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**400, 0.5, -1e308, math.inf, math.nan, "", "0", "x",
    "\ud800", "\0", "9" * 5000, [], {}, [[]], {"": None}, [None], ["x", 1], {"x": {"y": []}},
)  # fmt: skip
"""What a document has where something else is expected."""


def mutated(draw: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds with one to six changes; of JSON, one time in two, whole values are changed."""
    seed = draw.choice(seeds)
    if draw.randrange(2) and (found := _changed_json(draw, seed)) is not None:
        return found[:MAX_BYTES]
    data = bytearray(seed)
    for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 4, 6))):
        _change(draw, data, seeds)
        del data[MAX_BYTES:]
    return bytes(data)


def _changed_json(draw: random.Random, seed: bytes) -> bytes | None:
    """A document, or one of several with a line of dashes in between, with values changed; None: no JSON."""
    parts = seed.split(PARTS)
    at = draw.randrange(len(parts))
    try:
        document = json.loads(parts[at])
    except (ValueError, RecursionError):
        return None
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        document = _changed(draw, document)
    parts[at] = json.dumps(document).encode()
    return PARTS.join(parts)


def _changed(draw: random.Random, value: Any) -> Any:
    """The value with one of those in it, or itself, made another, left out or given twice."""
    if not isinstance(value, (list, dict)) or not value or not draw.randrange(8):
        return draw.choice(ODD_VALUES)
    copy = dict(enumerate(value)) if isinstance(value, list) else dict(value)
    key = draw.choice(list(copy))
    if not draw.randrange(6):
        del copy[key]
    elif not draw.randrange(8):
        copy[len(copy) if isinstance(value, list) else draw.choice(("", "x", "id"))] = copy[key]
    else:
        copy[key] = _changed(draw, copy[key])
    return list(copy.values()) if isinstance(value, list) else copy


def _change(draw: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    at = draw.randrange(len(data) + 1)
    end = min(len(data), at + draw.choice((1, 1, 2, 4, 8, 16, 64, 256)))
    match draw.randrange(12):
        case 0 | 1 if data:
            data[at % len(data)] ^= 1 << draw.randrange(8)
        case 2 if data:
            data[at % len(data)] = draw.randrange(256)
        case 3:
            width, bits = draw.choice(_WIDTHS)
            number = struct.pack(width, draw.choice(_NUMBERS) % 2**bits)
            data[at : at + len(number)] = number
        case 4:
            del data[at:end]
        case 5:
            data[at:at] = data[at:end] * draw.choice((1, 1, 2, 10, 100))
        case 6:
            del data[at:]
        case 7:
            data[at:at] = draw.randbytes(draw.choice((1, 2, 8, 32)))
        case 8 | 9:
            data[at:at] = draw.choice(ODD)
        case 10:
            data[at:end] = draw.choice(ODD)
        case _:
            other = draw.choice(seeds)
            begin = draw.randrange(len(other) + 1)
            data[at:end] = other[begin : begin + draw.choice((4, 16, 64, 1024))]
