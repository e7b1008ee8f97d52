"""Replacing single values inside a recorded msgpack document, byte by byte.

The document is scanned, never decoded and encoded again: whatever is not replaced leaves the simulator just
as a runtime sent it. Format: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgpack

Path = tuple[int | str, ...]
Scalar = int | float | bool | str

_pack = msgpack.Packer(autoreset=True).pack
_float32 = struct.Struct(">Bf")
_float64 = struct.Struct(">Bd")

# Tag to (width of the length field in bytes, extra bytes after it); for containers see _CONTAINERS.
_BLOBS = {
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0),
    0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1),
    0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0),
}  # fmt: skip
_FIXED = {
    0xC0: 1, 0xC2: 1, 0xC3: 1,
    0xCA: 5, 0xCB: 9,
    0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9,
    0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9,
    0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18,
}  # fmt: skip
_CONTAINERS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


class SpliceError(ValueError):
    """A recorded document does not have the shape that a splice needs."""


def _container(document: bytes, start: int) -> tuple[int, int, int]:
    """``(offset of the first child, entries, children per entry: 1 array, 2 map, 0 no container)``."""
    tag = document[start]
    if 0x80 <= tag <= 0x8F:
        return start + 1, tag & 0x0F, 2
    if 0x90 <= tag <= 0x9F:
        return start + 1, tag & 0x0F, 1
    if tag in _CONTAINERS:
        width, children = _CONTAINERS[tag]
        return start + 1 + width, int.from_bytes(document[start + 1 : start + 1 + width], "big"), children
    return start, 0, 0


def end_of(document: bytes, start: int) -> int:
    """Offset just behind the value that begins at ``start``."""
    if start >= len(document):
        raise SpliceError(f"the document ends at {len(document)}, a value was expected at {start}")
    tag = document[start]
    position, count, children = _container(document, start)
    if children:
        for _ in range(count * children):
            position = end_of(document, position)
        return position
    if tag <= 0x7F or tag >= 0xE0:
        return start + 1
    if 0xA0 <= tag <= 0xBF:
        return start + 1 + (tag & 0x1F)
    if tag in _FIXED:
        return start + _FIXED[tag]
    if tag in _BLOBS:
        width, extra = _BLOBS[tag]
        length = int.from_bytes(document[start + 1 : start + 1 + width], "big")
        return start + 1 + width + extra + length
    raise SpliceError(f"byte 0x{tag:02x} at {start} begins no msgpack value")


def elements(document: bytes, start: int = 0) -> Iterator[tuple[int, int]]:
    """``(start, end)`` of each element of the array at ``start``."""
    position, count, children = _container(document, start)
    if children != 1:
        raise SpliceError(f"no array at {start}")
    for _ in range(count):
        end = end_of(document, position)
        yield position, end
        position = end


def find(document: bytes, path: Path, start: int = 0) -> tuple[int, int]:
    """``(start, end)`` of the value at ``path``: strings are map keys, integers are array indexes."""
    for step in path:
        position, count, children = _container(document, start)
        if isinstance(step, int):
            if children != 1 or step >= count:
                raise SpliceError(f"no element {step} at {start}")
            for _ in range(step):
                position = end_of(document, position)
            start = position
            continue
        if children != 2:
            raise SpliceError(f"no map with key {step!r} at {start}")
        wanted = _pack(step)
        for _ in range(count):
            value = end_of(document, position)
            if document[position:value] == wanted:
                start = value
                break
            position = end_of(document, value)
        else:
            raise SpliceError(f"no key {step!r} in the map at {start}")
    return start, end_of(document, start)


def array_header(count: int) -> bytes:
    """The bytes in front of ``count`` array elements."""
    if count < 16:
        return bytes((0x90 | count,))
    if count < 1 << 16:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")


def encode_like(tag: int, value: Scalar) -> bytes:
    """``value`` in the msgpack type of a recorded value that began with ``tag`` (floats keep their width)."""
    if tag == 0xCA:
        return _float32.pack(tag, value)
    if tag == 0xCB:
        return _float64.pack(tag, value)
    return bytes(_pack(value))


@dataclass(frozen=True)
class Template:
    """A recorded document cut at the values that move; made by :func:`template`."""

    pieces: tuple[bytes, ...]
    tags: tuple[int, ...]

    def fill(self, values: Sequence[Scalar]) -> bytes:
        """The document with ``values``, one for each path, in document order, in place of the recorded."""
        if len(values) != len(self.tags):
            raise SpliceError(f"{len(values)} values for {len(self.tags)} places")
        parts: list[bytes] = []
        for piece, tag, value in zip(self.pieces, self.tags, values, strict=False):
            parts.append(piece)
            if tag == 0xCA:
                parts.append(_float32.pack(tag, value))
            elif tag == 0xCB:
                parts.append(_float64.pack(tag, value))
            else:
                parts.append(_pack(value))
        parts.append(self.pieces[-1])
        return b"".join(parts)


def template(document: bytes, paths: Sequence[Path]) -> Template:
    """Cut ``document`` at the values at ``paths``, which must be given in the order of the document."""
    pieces: list[bytes] = []
    tags: list[int] = []
    position = 0
    for path in paths:
        start, end = find(document, path)
        if start < position:
            raise SpliceError(f"path {path!r} is out of the document's order")
        pieces.append(document[position:start])
        tags.append(document[start])
        position = end
    pieces.append(document[position:])
    return Template(tuple(pieces), tuple(tags))


def splice(document: bytes, values: dict[Path, Scalar]) -> bytes:
    """``document`` with the values at some paths replaced, the rest byte for byte as it was."""
    spans = sorted((find(document, path), value) for path, value in values.items())
    parts: list[bytes] = []
    position = 0
    for (start, end), value in spans:
        parts += [document[position:start], encode_like(document[start], value)]
        position = end
    parts.append(document[position:])
    return b"".join(parts)
