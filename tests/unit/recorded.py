"""The recordings of real runtimes in tests/fixtures, by version."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clio_client.protocol.codec import Generation, RequestIds
from tests.paths import FIXTURES

BODY_AT = {Generation.A: 93, Generation.B: 97, Generation.C: 113, Generation.Z: 81}
"""Offset of the body in an answer or request (versions notes, "Differences in bytes")."""


def generation_of(version: str) -> Generation:
    """Protocol generation of a recorded version."""
    if version.startswith("2.3"):
        return Generation.C
    if version.startswith("2.2"):
        return Generation.B
    return Generation.Z if version.startswith("1.0") else Generation.A


@dataclass(frozen=True)
class Frame:
    """One recorded metadata frame; taken apart here, independently of the codec under test."""

    path: Path

    @property
    def generation(self) -> Generation:
        return generation_of(self.path.parent.name)

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()

    @property
    def is_connect(self) -> bool:
        return "connect" in self.path.name

    @property
    def body(self) -> bytes:
        return self.data[BODY_AT[self.generation] :]

    @property
    def ids(self) -> RequestIds:
        data = self.data
        if self.generation is Generation.Z:
            pid, _, major, _, unique = struct.unpack_from("<5I", data, 24)
            (key,) = struct.unpack_from("<Q", data, 52)
        else:
            pid, _, major, _, unique, _, key = struct.unpack_from("<6IQ", data, 40)
        assert major == unique
        return RequestIds(request_id=key, sequence=major, pid=pid)

    @property
    def reply_port(self) -> int:
        return int(struct.unpack_from("<I", self.data, 85)[0]) if self.generation.dials_back else 0

    @property
    def query(self) -> str:
        """Query text of a Monitor request."""
        if self.generation is Generation.Z:
            return "worker_stats"
        at = 100 if self.generation is Generation.A else 120
        (length,) = struct.unpack_from("<Q", self.body, at)
        text = self.body[at + 8 :]
        assert len(text) == length
        return text.decode()

    def __str__(self) -> str:
        return f"{self.path.parent.name}/{self.path.name.removesuffix('.bin')}"


def requests() -> list[Frame]:
    return [Frame(path) for path in sorted(FIXTURES.glob("*/*.request.bin"))]


def answers() -> list[Frame]:
    return [Frame(path) for path in sorted(FIXTURES.glob("*/*.response.bin"))]


def versions() -> list[str]:
    """Versions whose queries were recorded (all but 1.0.3)."""
    return sorted(path.parent.name for path in FIXTURES.glob("*/system_stats_0.msgpack"))


def document(version: str, name: str) -> bytes:
    """Raw msgpack document of container 0."""
    return (FIXTURES / version / f"{name}.msgpack").read_bytes()


def decoded(version: str, name: str) -> Any:
    """The same as recorded in JSON."""
    results = json.loads((FIXTURES / version / f"{name}.json").read_text())["results"]
    return results["0"]
