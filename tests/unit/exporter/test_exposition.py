"""The exposition against prometheus_client's parsers of both formats."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from clio_exporter.exposition import (
    Family,
    KeptTexts,
    Kind,
    Samples,
    Scope,
    format_value,
    join_labels,
    label_text,
)

GAUGE = Family("clio_test_bytes", Kind.GAUGE, 'Help with "quotes", a \\ and\na line.', "x", ("a", "b"))
COUNTER = Family("clio_test_reads_total", Kind.COUNTER, "Counted.", "x")
INFO = Family("clio_test_device_info", Kind.INFO, "Described.", "x", ("a",), Scope.EXPORTER)


def text(samples: Samples, *, openmetrics: bool = False) -> str:
    return b"".join(samples.render(openmetrics)).decode() + ("# EOF\n" if openmetrics else "")


Point = tuple[str, tuple[tuple[str, str], ...], float]


def parsed(samples: Samples, *, openmetrics: bool) -> list[Point]:
    parse = parse_openmetrics if openmetrics else parse_text
    return [
        (sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for family in parse(text(samples, openmetrics=openmetrics))
        for sample in family.samples
    ]


@pytest.mark.parametrize(
    "value", ['a"b', "a\\b", "a\nb", "\\n", '\\"', "\\", "", " ", "é\u2028{}=,#", "trailing\\"]
)
@pytest.mark.parametrize("openmetrics", [False, True])
def test_label_values_round_trip(value: str, openmetrics: bool) -> None:
    samples = Samples([GAUGE])
    samples.add(GAUGE, label_text({"a": value, "b": value[::-1]}), 1)
    assert parsed(samples, openmetrics=openmetrics) == [
        ("clio_test_bytes", (("a", value), ("b", value[::-1])), 1.0)
    ]


# Surrogates have no encoding; prometheus_client reads \r as the end of a line, Prometheus does not.
label_values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=20)
numbers = st.floats(allow_nan=False) | st.integers(-(2**53), 2**53) | st.booleans()
points = st.lists(
    st.tuples(st.sampled_from([GAUGE, COUNTER, INFO]), label_values, numbers),
    max_size=10,
    unique_by=lambda point: (point[0].name, point[1]),
)


@settings(max_examples=60, deadline=None)
@given(points)
def test_what_is_added_is_what_is_parsed(added: list[tuple[Family, str, float]]) -> None:
    samples = Samples([GAUGE, COUNTER, INFO])
    expected: list[Point] = []
    for family, label, value in added:
        number = 1.0 if family is INFO else float(abs(value) if family is COUNTER else value)
        samples.add(family, label_text({"a": label}), number)
        expected.append((family.name, (("a", label),), number))
    assert len(samples) == len(added)
    for openmetrics in (False, True):
        if openmetrics and any(family is COUNTER and math.isinf(v) for family, _, v in added):
            continue
        assert sorted(parsed(samples, openmetrics=openmetrics)) == sorted(expected)


@pytest.mark.parametrize("openmetrics", [False, True])
def test_metadata(openmetrics: bool) -> None:
    samples = Samples([GAUGE, COUNTER, INFO])
    for family in (GAUGE, COUNTER, INFO):
        samples.add(family, "", 1)
    families = list(
        (parse_openmetrics if openmetrics else parse_text)(text(samples, openmetrics=openmetrics))
    )
    assert [f.name for f in families] == [
        "clio_test_bytes", "clio_test_reads", "clio_test_device" if openmetrics else "clio_test_device_info",
    ]  # fmt: skip
    assert [f.type for f in families] == ["gauge", "counter", "info" if openmetrics else "gauge"]
    assert families[1].documentation == "Counted."
    assert families[0].documentation == GAUGE.help


def test_metadata_lines_are_those_of_the_formats() -> None:
    assert COUNTER.header(openmetrics=False) == (
        "# HELP clio_test_reads_total Counted.\n# TYPE clio_test_reads_total counter\n"
    )
    assert (
        COUNTER.header(openmetrics=True)
        == "# HELP clio_test_reads Counted.\n# TYPE clio_test_reads counter\n"
    )
    assert (
        INFO.header(openmetrics=False)
        == "# HELP clio_test_device_info Described.\n# TYPE clio_test_device_info gauge\n"
    )
    assert (
        INFO.header(openmetrics=True) == "# HELP clio_test_device Described.\n# TYPE clio_test_device info\n"
    )
    assert '\\"quotes\\"' in GAUGE.header(openmetrics=True)
    assert ' "quotes"' in GAUGE.header(openmetrics=False)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, "1"), (False, "0"), (0, "0"), (2**64 - 1, "18446744073709551615"), (0.1, "0.1"),
        (1e300, "1e+300"), (float("nan"), "NaN"), (float("inf"), "+Inf"), (float("-inf"), "-Inf"),
        (-0.5, "-0.5"),
    ],
)  # fmt: skip
def test_values(value: float, written: str) -> None:
    assert format_value(value) == written
    assert written in ("NaN",) or float(written) == float(value)


def test_no_value_is_no_sample_and_no_family() -> None:
    samples = Samples([GAUGE, COUNTER])
    samples.add(GAUGE, "", None)
    assert len(samples) == 0
    assert text(samples) == ""
    samples.add(COUNTER, "", 0)
    assert text(samples) == COUNTER.header(openmetrics=False) + "clio_test_reads_total 0\n"
    assert (samples.count([GAUGE]), samples.count([GAUGE, COUNTER])) == (0, 1)


@pytest.mark.parametrize("constant", ["", 'site="a\\\\b"'])
def test_a_column_is_what_its_samples_are_one_by_one(constant: str) -> None:
    labels = [label_text({"i": str(i)}) for i in range(7)]
    values = [3, -1, True, 2.5, math.nan, None, math.inf]
    column, single = Samples([GAUGE], constant), Samples([GAUGE], constant)
    column.add_column(GAUGE, labels, iter(values))
    for each, value in zip(labels, values, strict=True):
        single.add(GAUGE, each, value)
    assert text(column) == text(single)
    assert len(column) == len(single) == 6
    column.add_column(GAUGE, labels, [None] * 7)
    assert len(column) == 6


@pytest.mark.parametrize("constant", ["", 'site="a"'])
def test_a_kept_text_is_made_again_when_its_source_is_another(constant: str) -> None:
    kept, written = KeptTexts(), []

    def scrape(source: object, value: int) -> str:
        def write(own: Samples) -> None:
            written.append(value)
            own.add(GAUGE, 'a="x"', value)
            own.add(GAUGE, "", value)

        samples = Samples([COUNTER, GAUGE], constant)
        samples.add_kept(kept, "one", source, (GAUGE,), write)
        samples.add(GAUGE, 'a="y"', 9)
        assert len(samples) == 3
        return text(samples)

    before = scrape([1], 5)
    assert before == scrape([1], 6)
    assert before.replace(" 5\n", " 7\n") == scrape([2], 7)
    assert before == scrape([1], 5)
    assert written == [5, 7, 5]


def test_what_could_not_be_written_is_not_kept() -> None:
    kept, samples = KeptTexts(), Samples([GAUGE])

    def fail(own: Samples) -> None:
        own.add(GAUGE, "", 1)
        raise ValueError("no text")

    for _ in range(2):
        with pytest.raises(ValueError, match="no text"):
            samples.add_kept(kept, "one", 1, (GAUGE,), fail)
    assert len(samples) == 0
    samples.add_kept(kept, "one", 1, (GAUGE,), lambda own: own.add(GAUGE, "", 2))
    assert text(samples).endswith("\nclio_test_bytes 2\n")


def test_only_declared_families_can_be_added() -> None:
    with pytest.raises(KeyError):
        Samples([GAUGE]).add(COUNTER, "", 1)


def test_families_come_in_the_order_declared() -> None:
    samples = Samples([COUNTER, GAUGE])
    samples.add(GAUGE, "", 1)
    samples.add(COUNTER, "", 1)
    samples.add(GAUGE, 'a="x"', 2)
    lines = [line for line in text(samples).splitlines() if not line.startswith("#")]
    assert lines == ["clio_test_reads_total 1", "clio_test_bytes 1", 'clio_test_bytes{a="x"} 2']


def test_many_samples_come_in_chunks_and_complete() -> None:
    samples = Samples([COUNTER])
    for i in range(10_000):
        samples.add(COUNTER, label_text({"i": str(i)}), i)
    chunks = list(samples.render(openmetrics=False))
    assert len(chunks) > 2
    assert len(parsed(samples, openmetrics=False)) == 10_000


def test_text_without_an_encoding_costs_nothing_else() -> None:
    samples = Samples([GAUGE, INFO])
    samples.add(INFO, label_text({"a": "x\ud800y"}), 1)
    samples.add(GAUGE, "", 5)
    assert [point[1] for point in parsed(samples, openmetrics=False)] == [(), (("a", "x?y"),)]


def test_labels_are_joined_without_empty_pieces() -> None:
    assert join_labels("", 'a="1"', "", 'b="2"') == 'a="1",b="2"'
    assert join_labels("", "") == ""
    assert label_text({}) == ""
