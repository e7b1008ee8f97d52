"""`/config`: the settings in force, as a settings file would have them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from clio_client.config.masking import MASK
from clio_client.config.settings import SECTIONS
from clio_exporter import effective
from clio_exporter.collectors import COLLECTORS
from clio_exporter.flags import LOG, WEB
from clio_exporter.settings import Settings, parse_settings
from clio_web.options import WebOptions

FILE = """
clusters:
  - name: lab
    nodes: [n1, "n2:9500"]
    generation: C
    runtime_config: /etc/clio/{node_id}.yaml
    runtime_config_own: ["compose[*].capacity"]
    overrides: {"n1": {reply_address: 10.0.0.1}, "n2:9500": {generation: B}}
  - name: prod
    hostfile: /etc/clio/hostfile
    port: 9513
runtime: {timeout: 1500ms, reply_port: 0, max_in_flight: 2}
collectors:
  added: [cost]
  disabled: [config]
  pool: {interval: 2m, include: "cte_.*"}
  bdev: {exclude: "ram.*"}
probe: {allow_any: true}
labels: {site: north, rack: "7"}
"""


def loaded(text: str) -> Settings:
    return parse_settings(text, Path("/etc/clio/exporter.yaml"))


@pytest.mark.parametrize("text", [FILE, ""], ids=["everything", "defaults"])
def test_it_means_the_same_as_a_settings_file(text: str) -> None:
    before = loaded(text)
    document = effective.document(before)
    after = loaded(yaml.safe_dump(document, sort_keys=False))
    assert effective.document(after) == document
    assert document.keys() == set(SECTIONS)
    assert (after.runtime, after.probe, after.labels) == (before.runtime, before.probe, before.labels)
    for old, new in zip(before.clusters, after.clusters, strict=True):
        assert (old.name, old.hostfile, old.seed, old.port) == (new.name, new.hostfile, new.seed, new.port)
        assert [str(node) for node in old.nodes] == [str(node) for node in new.nodes]
        assert old.runtime_config == new.runtime_config
        assert old.runtime_config_own == new.runtime_config_own
        assert [(str(entry), own) for entry, own in old.overrides] == [
            (str(entry), own) for entry, own in new.overrides
        ]
    for collector in COLLECTORS:
        assert before.collectors.is_enabled(collector.name) == after.collectors.is_enabled(collector.name)
    for name in ("bdev_include", "bdev_exclude", "pool_include", "pool_exclude", "pool_interval_seconds"):
        assert getattr(before.collectors, name) == getattr(after.collectors, name)


def test_credentials_are_masked() -> None:
    settings = loaded("clusters: [{runtime_config: /etc/clio/token=abcdef.yaml}]")
    assert "abcdef" not in yaml.safe_dump(effective.document(settings))
    options = WebOptions(grafana_url="https://me:hush@grafana.example", listen_addresses=(":1", "[::1]:2"))
    values = {**vars(options), "level": "info", "log_format": "json"}
    shown = effective.flags(values, (*WEB, *LOG))
    assert shown["--web.grafana-url"] == f"https://{MASK}@grafana.example"
    assert shown["--web.listen-address"] == [":1", "[::1]:2"]
    assert (shown["--web.enable-lifecycle"], shown["--log.format"]) == (False, "json")
    assert effective.masked("api_key", ["x"]) == [MASK]
