"""The recorded answers that come with the package, by protocol generation."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from importlib import resources

GENERATIONS = ("C", "B", "A")

_LENGTH_AT = {"C": 105, "B": 89, "A": 85}


@dataclass(frozen=True)
class Recording:
    """What one runtime of a generation sent.

    ``lead`` and ``tail`` are the bytes of an answer's header before offset 40 and from offset 84 (message
    type) up to the body length; between them an answer repeats the request. ``results`` maps a name
    (``worker_stats``, ``bdev_301.0`` ...) to the msgpack document of container 0, ``connect`` is the body of
    the ClientConnect answer.
    """

    generation: str
    lead: bytes
    tail: bytes
    connect: bytes
    results: dict[str, bytes]

    @property
    def bdevs(self) -> dict[str, bytes]:
        """Statistics of the recorded block devices by pool id."""
        return {k.removeprefix("bdev_"): v for k, v in sorted(self.results.items()) if k.startswith("bdev_")}


def body_of(generation: str, frame: bytes) -> bytes:
    """The body of a whole recorded metadata frame."""
    at = _LENGTH_AT[generation]
    (length,) = struct.unpack_from("<Q", frame, at)
    body = frame[at + 8 :]
    if len(body) != length:
        raise ValueError(
            f"recorded frame of generation {generation}: body has {len(body)} bytes, not {length}"
        )
    return body


def result_of(generation: str, frame: bytes) -> bytes:
    """The only result in a recorded Monitor answer, ``b""`` when it has none."""
    body = body_of(generation, frame)
    (count,) = struct.unpack_from("<Q", body, 8)
    if count == 0:
        return b""
    (length,) = struct.unpack_from("<Q", body, 20)
    if count != 1 or len(body) != 28 + length:
        raise ValueError("recorded answer does not hold exactly one result")
    return body[28:]


@cache
def load(generation: str) -> Recording:
    """Read the recorded answers of ``generation`` (``"C"``, ``"B"`` or ``"A"``) from the package data."""
    folder = resources.files(__package__) / "recorded" / generation
    files = {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}
    if "worker_stats.response.bin" not in files or "client_connect.response.bin" not in files:
        raise FileNotFoundError(f"no recorded frames of generation {generation}: is the package complete?")
    header = files["worker_stats.response.bin"]
    results: dict[str, bytes] = {}
    for name, data in files.items():
        if name.endswith(".msgpack"):
            results[name.removesuffix(".msgpack")] = data
        elif name.endswith(".response.bin") and name != "client_connect.response.bin":
            results[name.removesuffix(".response.bin")] = result_of(generation, data)
    return Recording(
        generation=generation,
        lead=header[:40],
        tail=header[84 : _LENGTH_AT[generation]],
        connect=body_of(generation, files["client_connect.response.bin"]),
        results=results,
    )
