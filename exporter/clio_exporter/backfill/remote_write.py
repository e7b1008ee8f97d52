"""Prometheus's remote write, version 1.0: protobuf, snappy, POST.

The messages have seven fields in all, and their encoding is frozen by the specification. So they are written
here: a descriptor for the protobuf package would be as long as the encoder, and one more library with native
code. The tests read the bytes with that package.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import cramjam

from clio_client import __version__
from clio_client.config.errors import one_line
from clio_exporter.service_client import Answer, Service

PATH: Final = "/api/v1/write"
_HEADERS: Final = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
    "User-Agent": f"clio-exporter/{__version__}",
}
_ORDER: Final = re.compile(rb"out of order|too old|out of bounds", re.IGNORECASE)
_MAX_SHOWN: Final = 300

Samples = Sequence[tuple[int, float]]
"""Unix milliseconds and value, in order of time."""


class WriteError(Exception):
    """Prometheus did not take what was sent: what it said, and the remedy."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}. {remedy}")


def send(service: Service, series: Iterable[tuple[Mapping[str, str], Samples]]) -> None:
    """Send all of it in one request, which Prometheus takes whole or not at all. Raises `WriteError`."""
    body = bytes(cramjam.snappy.compress_raw(write_request(series)))
    answer = service.post(PATH, body, _HEADERS)
    if not 200 <= answer.status < 300:
        raise _refused(service.url, answer)


def write_request(series: Iterable[tuple[Mapping[str, str], Samples]]) -> bytes:
    """A `prometheus.WriteRequest`. Labels are sorted, as the specification asks."""
    return b"".join(_message(1, _time_series(labels, samples)) for labels, samples in series)


def _time_series(labels: Mapping[str, str], samples: Samples) -> bytes:
    parts = [
        _message(1, _message(1, name.encode()) + _message(2, value.encode()))
        for name, value in sorted(labels.items())
    ]
    for at, value in samples:
        # Field 1 is a double (wire type 1), field 2 a varint (wire type 0).
        parts.append(_message(2, b"\x09" + struct.pack("<d", value) + b"\x10" + _varint(at)))
    return b"".join(parts)


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Of a number that is not negative."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _refused(url: str, answer: Answer) -> WriteError:
    said = one_line(answer.body.decode(errors="replace"))[:_MAX_SHOWN]
    if answer.problem:
        return WriteError(f"{url} does not answer: {answer.problem}", "Give Prometheus's address")
    if answer.status == 404:
        return WriteError(
            f"{url} takes no remote writes (404: {said})",
            "Start Prometheus with --web.enable-remote-write-receiver",
        )
    if answer.status == 400 and _ORDER.search(answer.body):
        return WriteError(
            f"{url} takes no samples of the past (400: {said})",
            "Set out_of_order_time_window: 30m below storage: tsdb: in prometheus.yml and reload it "
            "(Prometheus 2.39 and newer)",
        )
    return WriteError(
        f"{url} refused the samples ({answer}{': ' if said else ''}{said})", "Look into Prometheus's log"
    )
