"""`--label` and `labels:`: what they may be, and that every series carries them."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from clio_client.config.errors import ConfigError
from clio_exporter.collectors.reference import all_families
from clio_exporter.constant_labels import emitted
from clio_exporter.engine import Engine
from clio_exporter.settings import Settings, parse_settings
from tests.ports import closed_port


def given(*labels: str) -> dict[str, str]:
    return dict(Settings().with_overrides(labels=list(labels)).labels.labels)


def test_flags_and_file_say_the_same() -> None:
    text = 'labels: {site: jülich, job_id: "0042", note: a=b}'
    settings = parse_settings(text, Path("/etc/clio.yml"))
    expected = {"site": "jülich", "job_id": "0042", "note": "a=b"}
    assert dict(settings.labels.labels) == expected
    assert given("site=jülich", "job_id=0042", "note=a=b") == expected
    assert dict(settings.with_overrides(labels=["x=y"]).labels.labels) == {"x": "y"}


def test_every_label_of_a_series_is_known() -> None:
    assert {"cluster", "node_id", "hostname", "worker_id", "collector", "generation", "version"} <= emitted()
    for family in all_families():
        assert set(family.labels) <= emitted()


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        ("site", "not a label"),
        ("site=", "not a label"),
        ("=x", "which is no name"),
        ("1a=x", "which is no name"),
        ("a-b=x", "which is no name"),
        ("__meta=x", "which Prometheus gives itself"),
        ("job=x", "which Prometheus gives itself"),
        ("node_id=x", "series of the exporter have already"),
        ("worker_id=x", "series of the exporter have already"),
        ("implementation=x", "series of the exporter have already"),
        ("site=a\nb", "not printable"),
    ],
)
def test_what_is_refused(label: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        given(label)
    assert problem in str(caught.value)
    assert "--label" in str(caught.value)


def test_a_label_twice_and_one_in_a_file() -> None:
    with pytest.raises(ConfigError, match="the label a twice"):
        given("a=1", "a=2")
    with pytest.raises(ConfigError) as caught:
        parse_settings("labels:\n  site: x\n  pool_id: y\n", Path("/etc/clio.yml"))
    assert caught.value.line == 3


@pytest.mark.parametrize("openmetrics", [False, True])
def test_every_sample_carries_them(tmp_path: Path, openmetrics: bool) -> None:
    with closed_port() as port:
        settings = Settings().with_overrides(
            nodes=f"127.0.0.1:{port - 3}", reply_port="0", labels=["site=x", 'note=a "b" \\']
        )
        engine = Engine(lambda: settings, {}, tmp_path)
        try:
            text = b"".join(engine.scrape(None, 5).render(openmetrics)).decode()
            probed = b"".join(engine.probe(f"127.0.0.1:{port - 3}", None, 5).render(False)).decode()
        finally:
            engine.close()
    parse = openmetrics_families if openmetrics else text_string_to_metric_families
    names = set()
    for family in (*parse(text), *text_string_to_metric_families(probed)):
        for sample in family.samples:
            assert (sample.labels["site"], sample.labels["note"]) == ("x", 'a "b" \\'), sample
            names.add(sample.name)
    assert {"clio_node_up", "clio_cluster_nodes", "clio_exporter_build_info", "process_open_fds"} <= names
