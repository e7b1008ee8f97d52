"""What the exporter says of itself, as both formats' parsers read it."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from clio_exporter.exposition import Kind
from clio_exporter.telemetry import FAMILIES, Telemetry, process_families


@pytest.fixture
def telemetry() -> Telemetry:
    telemetry = Telemetry()
    telemetry.transport = lambda: {"requests_sent": 7, "answers_late": 2, "connections_open": 3}
    telemetry.certificate = lambda: 1_900_000_000.0
    telemetry.polled(shared=False)
    telemetry.polled(shared=True)
    telemetry.answered("/metrics", 200)
    telemetry.reloaded(True, 1_700_000_000.0)
    return telemetry


def test_a_silent_one_writes_nothing() -> None:
    telemetry = Telemetry(silent=True)
    telemetry.polled(shared=False)
    assert telemetry.render(openmetrics=False) == b""
    assert telemetry.render(openmetrics=True) == b""


def test_families_are_written_as_they_are_declared(telemetry: Telemetry) -> None:
    text = telemetry.render(openmetrics=True).decode()
    assert "# EOF" not in text
    found = {family.name: family for family in parse_openmetrics(text + "# EOF\n")}
    assert set(found) == {family.base_name for family in FAMILIES} | set(process_families())
    for family in FAMILIES:
        written = found[family.base_name]
        assert (written.type, written.documentation) == (family.kind.value, family.help)
        assert {sample.name for sample in written.samples} == {family.name}
        assert all(set(sample.labels) == set(family.labels) for sample in written.samples)


def test_the_text_format_has_the_same_samples(telemetry: Telemetry) -> None:
    text = telemetry.render(openmetrics=False).decode()
    for family in FAMILIES:
        kind = "gauge" if family.kind is Kind.INFO else family.kind.value
        assert f"# HELP {family.name} {family.help}\n# TYPE {family.name} {kind}\n" in text
    samples = {sample.name: sample for family in parse_text(text) for sample in family.samples}
    assert not [name for name in samples if name.endswith("_created")]
    assert samples["clio_exporter_runtime_requests_total"].value == 7
    assert samples["clio_exporter_collections_shared_total"].value == 1


def test_a_reload_that_failed_leaves_the_time_of_the_last_good_one(telemetry: Telemetry) -> None:
    telemetry.reloaded(False, 1_800_000_000.0)
    lines = telemetry.render(openmetrics=False).decode().splitlines()
    assert "clio_exporter_config_last_reload_successful 0.0" in lines
    assert "clio_exporter_config_last_reload_success_timestamp_seconds 1.7e+09" in lines


def test_without_tls_nothing_is_said_of_a_certificate() -> None:
    assert "certificate" not in Telemetry().render(openmetrics=False).decode()


def test_no_more_scrapes_than_the_limit(telemetry: Telemetry) -> None:
    assert [telemetry.enter(2) for _ in range(3)] == [True, True, False]
    telemetry.leave()
    assert telemetry.enter(2)
    assert telemetry.enter(0)
