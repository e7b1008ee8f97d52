"""`clio-exporter backfill`: what is missing, what fills it, and the bytes that are sent."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cramjam
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import example, given
from hypothesis import strategies as st

from clio_client.config.errors import ConfigError
from clio_client.membership import Member
from clio_client.transport.interface import NodeAddress
from clio_exporter import cli
from clio_exporter.backfill import command, gaps, live, remote_write
from clio_exporter.backfill.gaps import Gap
from clio_exporter.backfill.live import LOOK_BACK_S, Live, Series
from clio_exporter.backfill.plan import CLOCK_MS, Index, NotFilledError, Plan, plan
from clio_exporter.backfill.remote_write import WriteError
from clio_exporter.service_client import Answer, Service
from tests.unit.exporter.test_record import sample

NOW = 1_700_000_000_000
CPU = "clio_node_cpu_utilization_ratio"
GPU = "clio_node_gpu_utilization_ratio"


# --- Gaps ---------------------------------------------------------------------


def test_a_gap_is_longer_than_two_and_a_half_intervals() -> None:
    assert gaps.find([1000, 2000, 4500, 7001], 0, 1000) == [Gap(4500, 7001)]
    assert gaps.find([15_000, 52_500, 90_001], 0, 15_000) == [Gap(52_500, 90_001)]
    assert gaps.find([5000], 0, 1000) == [Gap(0, 5000)]
    assert gaps.find([], 0, 1000) == []


def test_a_gap_is_filled_by_the_sample_nearest_to_each_missing_scrape() -> None:
    ring = [400 + 1000 * second for second in range(100)]
    found = gaps.fill(Gap(10_000, 70_000), ring, 15_000)
    assert [ring[i] for i in found] == [25_400, 40_400, 55_400]
    found = gaps.fill(Gap(10_000, 15_000), ring, 1000)
    assert [ring[i] for i in found] == [11_400, 12_400, 13_400, 14_400]


def test_a_sample_between_two_scrapes_goes_in_once() -> None:
    assert gaps.fill(Gap(0, 5000), [2500], 1000) == [0]
    assert gaps.fill(Gap(0, 5000), [500, 1500, 2500, 3500, 4500], 1000) == [1, 2, 3, 4]


def test_what_the_ring_does_not_have_stays_missing() -> None:
    assert gaps.fill(Gap(0, 60_000), [], 15_000) == []
    assert gaps.fill(Gap(0, 60_000), [70_000, 71_000], 15_000) == []
    ring = [20_000, 44_500, 52_600]  # no sample near the scrapes at 15 and 30 s
    assert gaps.fill(Gap(0, 60_000), ring, 15_000) == [1]


@given(
    st.lists(st.integers(1, 400_000), min_size=1, max_size=30, unique=True).map(sorted),
    st.lists(st.integers(1, 400_000), max_size=80, unique=True).map(sorted),
    st.sampled_from([500, 1000, 5000, 15_000]),
)
def test_samples_are_inside_gaps_once_and_apart(times: list[int], ring: list[int], interval: int) -> None:
    for gap in gaps.find(times, 0, interval):
        filled = [ring[i] for i in gaps.fill(gap, ring, interval)]
        assert filled == sorted(set(filled))
        assert all(gap.begin + interval / 2 < at < gap.end for at in filled)
        assert len(filled) <= (gap.end - gap.begin) / interval
        assert not set(filled) & set(times)


@given(st.integers(0, 999), st.integers(3, 300), st.sampled_from([1000, 2000, 5000, 15_000]))
@example(500, 3, 1000)
@example(0, 3, 1000)
def test_a_gap_that_the_ring_covers_is_none_afterwards(phase: int, scrapes: int, interval: int) -> None:
    gap = Gap(100_000, 100_000 + scrapes * interval)
    ring = [phase + 1000 * second for second in range(5000)]
    filled = [ring[i] for i in gaps.fill(gap, ring, interval)]
    assert gaps.find([gap.begin, *filled, gap.end], gap.begin, interval) == []
    assert len(filled) == scrapes - 1


# --- Plans --------------------------------------------------------------------


def series(times: Sequence[int], name: str = CPU, **labels: str) -> Series:
    own = {"__name__": name, "job": "clio", "instance": "a:1", "node_id": "0", "hostname": "h"}
    return Series({**own, **labels}, times)


def planned(*found: Series, ring: Sequence[Any] | None = None, interval: int | None = 1000) -> Plan:
    families: dict[str, list[Series]] = {}
    for each in found:
        families.setdefault(each.labels["__name__"], []).append(each)
    kept = seconds(range(-100, 1)) if ring is None else ring
    return plan(families, kept, Live(NOW, found, {}), NOW + 500, interval)


def seconds(before: range, **values: Any) -> list[Any]:
    """A ring of these seconds, from now."""
    return [
        sample(s, **{"wall_time_ns": NOW * 1_000_000 + s * 10**9, "cpu_usage_pct": 50.0, **values})
        for s in before
    ]


def at(*before: float) -> list[int]:
    return [NOW + round(s * 1000) for s in before]


def test_only_the_gap_is_filled_under_the_labels_of_the_series() -> None:
    one = series(at(*range(-1190, -19), -6, -5, -4), site="here")
    (fill,) = planned(one).fills
    assert fill.labels == one.labels
    assert fill.samples == [(t, 0.5) for t in at(*range(-19, -6))]


def test_an_exporter_that_came_back_under_another_name_goes_on_where_the_old_one_ended() -> None:
    before = series(at(*range(-1190, -29)), instance="old")
    after = series(at(-20, -19, -18), instance="new")
    (fill,) = planned(before, after).fills
    assert fill.labels["instance"] == "new"
    assert [t for t, _ in fill.samples] == at(*range(-29, -20))


def test_what_is_scraped_twice_is_not_guessed() -> None:
    with pytest.raises(NotFilledError, match="--instance"):
        planned(series(at(-50, -10), instance="a"), series(at(-40, -5), instance="b"))


def test_families_that_are_not_live_or_not_in_the_ring_are_not_made_up() -> None:
    found = planned(
        series(at(-50, -10)), series(at(-50, -10), GPU), ring=seconds(range(-100, 1), gpu_count=0)
    )
    assert {fill.labels["__name__"] for fill in found.fills} == {CPU}


def test_a_gap_that_nothing_is_remembered_of_is_told() -> None:
    found = planned(series(at(*range(-1190, -400), -300)), ring=seconds(range(-100, 1)))
    assert (found.fills, found.lost) == ([], {Gap(*at(-401, -300))})


def test_a_gap_that_goes_on_is_told_and_left() -> None:
    found = planned(series(at(*range(-1190, -9))))
    assert (found.fills, found.newest) == ([], at(-10)[0])
    assert planned(series(at(*range(-1190, -1)))).newest is None


@pytest.mark.parametrize("off", [-30, 30])
def test_a_node_whose_clock_is_off_is_left_alone(off: int) -> None:
    with pytest.raises(NotFilledError, match="clock"):
        planned(series(at(-50, -10)), ring=seconds(range(-100 + off, off)))
    assert CLOCK_MS < 30_000


def test_what_cannot_be_known_is_said() -> None:
    with pytest.raises(NotFilledError, match="--interval"):
        planned(series(at(-50, -10)), interval=None)
    with pytest.raises(NotFilledError, match="no live series"):
        planned()
    with pytest.raises(NotFilledError, match="remembers nothing"):
        planned(series(at(-50, -10)), ring=[])


def test_the_interval_is_that_of_the_target_or_of_its_job() -> None:
    found = Live(NOW, [], {("clio", "a:1"): 1000, ("clio", "b:1"): 5000, ("other", "c"): 15_000})
    assert found.interval(series([])) == 1000
    assert found.interval(series([], instance="gone")) is None
    assert found.interval(series([], job="other", instance="gone")) == 15_000


# --- Prometheus ---------------------------------------------------------------


@contextmanager
def prometheus(answers: dict[str, tuple[int, str]]) -> Iterator[tuple[Service, list[tuple[str, bytes, Any]]]]:
    """Answers these paths; keeps what was posted."""
    posted: list[tuple[str, bytes, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(*answers.get(self.path.partition("?")[0], (404, "")))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append((self.path, body, self.headers))
            self._answer(*answers.get(self.path, (204, "")))

        def _answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Service(f"http://127.0.0.1:{server.server_port}", 30), posted
        finally:
            server.shutdown()
            thread.join()


def test_no_live_series_and_no_prometheus_are_told_apart() -> None:
    with (
        prometheus({"/api/v1/query": (200, "<html>")}) as (service, _),
        pytest.raises(ConfigError, match="does not answer as Prometheus"),
    ):
        live.look(service, [CPU], {})
    clock = json.dumps({"data": {"resultType": "scalar", "result": [1, "1"], "empty": True}})
    with (
        prometheus({"/api/v1/query": (200, clock)}) as (service, _),
        pytest.raises(ConfigError, match="no live"),
    ):
        live.look(service, [], {"job": "x"})


def answered(result: object, kind: str = "matrix") -> bytes:
    return json.dumps({"data": {"resultType": kind, "result": result}}).encode()


@pytest.mark.parametrize(
    ("clock", "found", "says"),
    [
        ([1, "x"], [], "pair of time and number"),
        ([], [], "pair of time and number"),
        ([1, "NaN"], [], "its clock says nan"),
        ([1, "1e300"], [], r"its clock says 1e\+300"),
        ([1, "1000"], 1, "no list of series"),
        ([1, "1000"], [{"metric": {}}], "no list of values"),
        ([1, "1000"], [{"values": [[1]]}], "pair of time and number"),
    ],
)
def test_an_odd_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, clock: list[object], found: object, says: str
) -> None:
    answers = [answered(clock, "scalar"), answered(found)]
    monkeypatch.setattr(Service, "_ask", lambda *_: Answer(200, answers.pop(0)))
    with pytest.raises(ConfigError, match=says):
        live.look(Service("http://p", 1), [CPU], {})


def test_targets_that_are_none_have_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = {"activeTargets": [1, {"scrapeInterval": "5s"}, {"scrapeInterval": "9" * 5000 + "s"}]}
    answers = [
        answered([1, "1000"], "scalar"),
        answered([{"metric": {"job": "a", "x": 1}, "values": [[999.5, "1"]]}]),
        json.dumps({"data": targets}).encode(),
    ]
    monkeypatch.setattr(Service, "_ask", lambda *_: Answer(200, answers.pop(0)))
    seen = live.look(Service("http://p", 1), [CPU], {})
    assert [(s.labels, s.times) for s in seen.series] == [({"job": "a"}, [999_500])]
    assert seen.intervals == {("", ""): 5000}


def test_intervals_as_prometheus_writes_them() -> None:
    assert [live._seconds(text) for text in ("1s", "500ms", "1m30s", "1h", "")] == [1, 0.5, 90, 3600, 0]


def test_the_command_needs_an_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["backfill", "--nodes", "127.0.0.1:1"]) == 2
    assert "--prometheus" in capsys.readouterr().err


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cramjam", None)
    monkeypatch.delitem(sys.modules, "clio_exporter.backfill.remote_write")
    monkeypatch.delattr("clio_exporter.backfill.remote_write")
    with pytest.raises(ConfigError, match=r"needs cramjam.*clio-exporter\[backfill\]"):
        command._sender(Service("http://127.0.0.1:1", 1))


def test_nodes_are_found_by_their_labels() -> None:
    index = Index([series([1], cluster="x"), series([1], node_id="1"), series([1], hostname="other")])
    assert LOOK_BACK_S > 1024
    for cluster, found in (("", 1), ("x", 1), ("y", 0)):
        member = Member(address=NodeAddress("127.0.0.1", 9413), node_id=0, hostname="h", cluster=cluster)
        assert len(index.of(member).get(CPU, [])) == found


# --- Remote write -------------------------------------------------------------


TEXTS = st.text('ab_"\\\n\u00e9\u4e2d\U0001f600', max_size=200)


@cache
def messages() -> Any:
    """`prometheus.WriteRequest`, from the specification's .proto, as the protobuf package makes it."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="remote.proto", package="prometheus", syntax="proto3")
    for name, fields in {
        "Label": [("name", 1, field.TYPE_STRING, ""), ("value", 2, field.TYPE_STRING, "")],
        "Sample": [("value", 1, field.TYPE_DOUBLE, ""), ("timestamp", 2, field.TYPE_INT64, "")],
        "TimeSeries": [
            ("labels", 1, field.TYPE_MESSAGE, "Label"),
            ("samples", 2, field.TYPE_MESSAGE, "Sample"),
        ],
        "WriteRequest": [("timeseries", 1, field.TYPE_MESSAGE, "TimeSeries")],
    }.items():
        message = file.message_type.add(name=name)
        for own, number, kind, of in fields:
            added = message.field.add(name=own, number=number, type=kind, label=field.LABEL_OPTIONAL)
            if of:
                added.label, added.type_name = field.LABEL_REPEATED, f".prometheus.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("prometheus.WriteRequest"))


@given(
    st.lists(
        st.tuples(
            st.dictionaries(TEXTS, TEXTS, max_size=4),
            st.lists(st.tuples(st.integers(0, 2**63 - 1), st.floats(allow_nan=False)), max_size=4),
        ),
        max_size=4,
    )
)
def test_the_bytes_are_the_protobuf_of_the_specification(
    sent: list[tuple[dict[str, str], list[tuple[int, float]]]],
) -> None:
    decoded = messages().FromString(remote_write.write_request(sent))
    assert [
        ([(x.name, x.value) for x in s.labels], [(x.timestamp, x.value) for x in s.samples])
        for s in decoded.timeseries
    ] == [(sorted(labels.items()), samples) for labels, samples in sent]


def test_it_is_sent_as_the_specification_says() -> None:
    with prometheus({}) as (service, posted):
        remote_write.send(service, [({"__name__": "x"}, [(NOW, 1.5)])])
    ((path, body, headers),) = posted
    assert path == "/api/v1/write"
    assert headers["Content-Encoding"] == "snappy"
    assert headers["Content-Type"] == "application/x-protobuf"
    assert headers["X-Prometheus-Remote-Write-Version"] == "0.1.0"
    decoded = messages().FromString(bytes(cramjam.snappy.decompress_raw(body)))
    assert [(s.timestamp, s.value) for s in decoded.timeseries[0].samples] == [(NOW, 1.5)]


@pytest.mark.parametrize(
    ("status", "said", "remedy"),
    [
        (404, "receiver needs to be enabled", "--web.enable-remote-write-receiver"),
        (400, "out of order sample", "out_of_order_time_window: 30m"),
        (400, "too old sample", "out_of_order_time_window: 30m"),
        (500, "disk full", "log"),
    ],
)
def test_what_is_refused_names_the_remedy(status: int, said: str, remedy: str) -> None:
    with (
        prometheus({"/api/v1/write": (status, said)}) as (service, _),
        pytest.raises(WriteError, match=remedy) as refused,
    ):
        remote_write.send(service, [({"__name__": "x"}, [(NOW, 1.5)])])
    assert said in str(refused.value)
