from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clio_lab.simulator.frames import (
    LAYOUTS,
    Rejected,
    Request,
    answer,
    connect_body,
    monitor_answer,
    parse,
)
from clio_lab.simulator.recorded import load
from tests.paths import FIXTURES
from tests.unit.lab.simulator.raw_client import BODY_AT, CONNECT, MONITOR, VERSION, build

OWN = {
    "A": ["1.5.1", "1.5.8", "1.9.0", "1.9.7", "2.0.0", "2.1.0"],
    "B": ["2.2.0", "2.2.1"],
    "C": ["2.3.1", "2.3.2"],
}
REQUESTS = [
    (generation, path)
    for generation, versions in OWN.items()
    for version in versions
    for path in sorted((FIXTURES / version).glob("*.request.bin"))
]


@pytest.mark.parametrize(("generation", "path"), REQUESTS, ids=lambda value: getattr(value, "name", value))
def test_recorded_requests_are_read(generation: str, path) -> None:
    frame = path.read_bytes()
    request = parse(LAYOUTS[generation], frame)
    assert isinstance(request, Request)
    assert request.echo == frame[40:84]
    assert request.routing == 0
    assert request.pool == (1, 0)
    if request.method == CONNECT:
        assert request.query is None
    else:
        assert request.query
        assert frame.endswith(request.query)
    for other in LAYOUTS:
        if other != generation:
            rejected = parse(LAYOUTS[other], frame)
            assert isinstance(rejected, Rejected)
            tolerated = request.method == CONNECT and (generation, other) == ("B", "C")
            assert rejected.violation == (None if tolerated else "foreign_generation")


def test_the_test_client_builds_what_was_recorded() -> None:
    for generation, version in VERSION.items():
        frame = (FIXTURES / version / "native_monitor_worker_stats.request.bin").read_bytes()
        key = struct.unpack_from("<Q", frame, 64)[0]
        port = struct.unpack_from("<I", frame, 85)[0] if generation != "A" else 0
        built = build(generation, MONITOR, b"worker_stats", key, port)
        # Task ids differ (40 to 64 in the header, again in the body); all the rest must not.
        body = BODY_AT[generation]
        for left, right in ((0, 40), (64, body + 8), (body + 32, len(frame))):
            assert built[left:right] == frame[left:right], generation
        assert len(built) == len(frame)


@pytest.mark.parametrize("generation", LAYOUTS)
def test_recorded_answers_are_rebuilt_byte_for_byte(generation: str) -> None:
    recording = load(generation)
    folder = FIXTURES / VERSION[generation]
    frame = (folder / "native_connect.response.bin").read_bytes()
    pid, started = struct.unpack_from("<i", frame, BODY_AT[generation] + 20)[0], 0
    (started,) = struct.unpack_from("<Q", frame, BODY_AT[generation] + 12)
    if generation != "C":  # the package holds another ClientConnect answer of 2.3.2
        assert answer(recording, frame[40:84], connect_body(recording, pid, started)) == frame
    frame = (folder / "native_monitor_worker_stats.response.bin").read_bytes()
    payload = frame[BODY_AT[generation] + 28 :]
    assert monitor_answer(recording, frame[40:84], 0, 0, [(0, payload)]) == frame


def test_an_answer_without_and_with_many_results() -> None:
    recording = load("C")
    folder = FIXTURES / "2.3.2"
    recorded = (folder / "pool_stats_400.0_local_stats.response.bin").read_bytes()
    assert monitor_answer(recording, recorded[40:84], 0, 0, []) == recorded
    frame = monitor_answer(recording, recorded[40:84], 7, 1, [(0, b"\x01"), (1, b"\x02\x03")])
    body = (
        struct.pack("<IIQ", 7, 1, 2)
        + struct.pack("<IQ", 0, 1)
        + b"\x01"
        + struct.pack("<IQ", 1, 2)
        + b"\x02\x03"
    )
    assert frame == recorded[:105] + struct.pack("<Q", len(body)) + body


def test_the_answer_to_a_detection_frame_announces_one_record() -> None:
    recorded = Path(__file__).with_name("probe_answer_2.3.2.bin").read_bytes()
    request = parse(LAYOUTS["C"], build("C", CONNECT, None, 0x1122334455667788, 9778, records=256))
    assert isinstance(request, Request)
    built = answer(load("C"), request.echo, connect_body(load("C"), 1, 2))
    # Task ids differ (40 to 64); all the rest of the header must not.
    assert built[:40] + built[64:113] == recorded[:40] + recorded[64:113]
    assert len(built) == len(recorded)


def test_the_connect_answer_carries_pid_and_start() -> None:
    body = connect_body(load("C"), 77, 99)
    assert struct.unpack_from("<Qi", body, 12) == (99, 77)
    assert struct.unpack_from("<4i", body, 32) == (77, 1, 77, 2)
    assert len(body) == 1160


@pytest.mark.parametrize(
    ("server", "frame", "violation"),
    [
        ("C", build("C", CONNECT, None, 5, 9778, records=256), "read"),
        ("A", build("A", CONNECT, None, 5, 0, records=256, zero_body_id=True), "read"),
        ("B", build("C", CONNECT, None, 5, 9778, records=256), None),
        ("A", build("C", CONNECT, None, 5, 9778, records=256), None),
        ("C", build("A", CONNECT, None, 5, 0, records=256, zero_body_id=True), None),
        ("C", build("A", CONNECT, None, 5, 0, records=256), "foreign_generation"),
        ("B", build("A", CONNECT, None, 5, 0, records=256, zero_body_id=True), "risky_probe"),
        ("A", build("B", CONNECT, None, 5, 9778), "foreign_generation"),
        ("A", build("C", CONNECT, None, 5, 9778), "foreign_generation"),
        ("C", build("A", MONITOR, b"worker_stats", 5, 0), "foreign_generation"),
        ("C", build("C", MONITOR, b"worker_stats", 5, 9778, records=256), "announced_lengths"),
        ("C", build("C", MONITOR, b"worker_stats", 5, 9778, records=2), "announced_lengths"),
        ("C", build("C", MONITOR, b"worker_stats", 5, 9778, kind=1), "message_type"),
        ("C", build("C", 12, None, 5, 9778), "method"),
        ("C", build("C", CONNECT, b"worker_stats", 5, 9778), "announced_lengths"),
        ("C", build("C", MONITOR, None, 5, 9778), "announced_lengths"),
        ("C", build("C", MONITOR, b"x", 5, 9778, zero_body_id=True), "inconsistent_body"),
        ("C", b"", "announced_lengths"),
        ("C", b"\x00" * 200, "announced_lengths"),
    ],
)
def test_frames_are_judged_by_what_they_do_to_a_real_runtime(
    server: str, frame: bytes, violation: str | None
) -> None:
    parsed = parse(LAYOUTS[server], frame)
    if violation == "read":
        assert isinstance(parsed, Request)
        assert parsed.records == 256
    else:
        assert isinstance(parsed, Rejected)
        assert parsed.violation == violation
        assert parsed.dial_back == (server == "B" and violation is None)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_no_damaged_frame_is_read_as_a_request_of_another_length(data: st.DataObject) -> None:
    generation = data.draw(st.sampled_from("CBA"))
    frame = build(generation, MONITOR, b"system_stats:7", 3, 9778)
    cut = data.draw(st.integers(0, len(frame) - 1))
    for damaged in (frame[:cut], frame + frame[cut:]):
        parsed = parse(LAYOUTS[generation], damaged)
        assert isinstance(parsed, Rejected)
        assert parsed.violation in ("announced_lengths", "foreign_generation")
