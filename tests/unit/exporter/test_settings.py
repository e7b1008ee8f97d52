"""What the settings file says to the exporter alone; the rest of the file is tested with the client."""

from __future__ import annotations

from pathlib import Path

import pytest

from clio_client.config import settings as client
from clio_client.config.errors import ConfigError
from clio_exporter.collectors import COLLECTORS
from clio_exporter.settings import CollectorSettings, ProbeSettings, Settings, load_settings, parse_settings
from tests.paths import ROOT

TEXT = """\
clusters: [{nodes: [a]}]
runtime: {max_in_flight: 2}
collectors: {pool: {interval: 2m}, node: {peak_window: 30}, disabled: [cte, config]}
probe: {allow_any: true}
"""


def parse(text: str) -> Settings:
    return parse_settings(text, Path("/etc/clio/exporter.yml"))


def enabled(settings: Settings) -> list[str]:
    return [name for name in ("node", "pool", "cte") if settings.collectors.is_enabled(name)]


def test_the_sections_of_the_exporter() -> None:
    settings = parse(TEXT)
    assert settings.collectors == CollectorSettings(
        None, frozenset(), frozenset({"cte", "config"}), 120.0, 30.0
    )
    assert settings.probe == ProbeSettings(True)
    assert settings.runtime.max_in_flight == 2
    hash(settings)


def test_without_a_file_all_collectors_run_that_are_on_by_default() -> None:
    for text in ("", "probe: ~\ncollectors:\n"):
        assert parse(text) == Settings(path=Path("/etc/clio/exporter.yml"))
    settings = Settings().collectors
    assert [c.name for c in COLLECTORS if not settings.is_enabled(c.name)] == ["cost"]
    assert [c.name for c in COLLECTORS if not c.on_by_default] == ["cost"]


def test_other_clients_read_the_same_file() -> None:
    settings = client.parse_settings(TEXT, Path("/etc/clio/exporter.yml"))
    assert type(settings) is client.Settings
    assert (settings.clusters, settings.runtime) == (parse(TEXT).clusters, parse(TEXT).runtime)


@pytest.mark.parametrize(
    ("text", "line", "problem", "remedy"),
    [
        ("probe: {a: 1}", 1, "unknown key 'a' in probe", "allow_any"),
        ("collectors:\n  pool: {intervall: 1}", 2, "'intervall' in collectors.pool", "mean interval?"),
        ("collectors: {worker: {}}", 1, "unknown key 'worker'", "Use one of"),
        ("collectors: {enabled: [bdevs]}", 1, "collectors.enabled[0] is 'bdevs'", "Did you mean bdev?"),
        ("collectors: {enabled: [cte], disabled: [cte]}", 1, "enabled both name cte", "one of the two"),
        ("collectors: {added: [cost], disabled: [cost]}", 1, "added both name cost", "one of the two"),
        ("collectors: {node: {peak_window: 1h}}", 1, "from 1s to 1024s", "1m"),
        ("probe: {allow_any: maybe}", 1, "probe.allow_any is 'maybe'", "true or false"),
        ("runtime: {timeout: 0}", 1, "not a duration from 0.01s to 300s", "3s, 500ms"),
    ],
)
def test_errors_name_file_line_key_and_remedy(text: str, line: int, problem: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    error = caught.value
    assert (error.path, error.line) == ("/etc/clio/exporter.yml", line), error
    assert problem in error.problem
    assert remedy in error.remedy


def test_flags_override_the_file() -> None:
    changed = parse("clusters: [{nodes: [a]}]").with_overrides(
        port=9000, reply_port=0, pool_interval_seconds=5, node_peak_window_seconds=7, allow_any=True
    )
    assert (changed.clusters[0].port, changed.runtime.reply_port) == (9000, 0)
    assert changed.collectors == CollectorSettings(pool_interval_seconds=5, node_peak_window_seconds=7)
    assert changed.probe.allow_any
    assert Settings().with_overrides() == Settings()
    with pytest.raises(TypeError, match="no such settings: reply_prot"):
        Settings().with_overrides(reply_prot=1)
    with pytest.raises(ConfigError, match=r"^--collector.node.peak-window: '2000' is not a duration"):
        Settings().with_overrides(node_peak_window_seconds=2000)


def test_switching_collectors() -> None:
    only = parse("collectors: {enabled: [node, cte]}")
    assert enabled(only) == ["node", "cte"]
    assert enabled(only.with_overrides({"pool": True, "cte": False})) == ["node", "pool"]
    assert enabled(parse("collectors: {disabled: [cte, pool]}").with_overrides({"cte": True})) == [
        "node",
        "cte",
    ]


def test_what_is_off_by_default_can_be_added() -> None:
    added = parse("collectors: {added: [cost], disabled: [cte]}")
    assert added.collectors.is_enabled("cost")
    assert enabled(added) == ["node", "pool"]
    assert not added.with_overrides({"cost": False}).collectors.is_enabled("cost")
    assert parse("collectors: {enabled: [cost]}").collectors.is_enabled("cost")
    assert not parse("collectors: {enabled: [cost]}").collectors.is_enabled("node")


def test_the_documented_example_is_valid() -> None:
    example = (
        (ROOT / "docs/configuration.md").read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    )
    assert not parse(example).collectors.is_enabled("cte")


def test_the_example_of_contrib_is_valid() -> None:
    assert load_settings(ROOT / "contrib/config/exporter.yaml").clusters[0].name == "alpha"


# --- names of pools and devices ------------------------------------------------------------------------


def test_a_pattern_that_is_none_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"s\.yaml:3: .*exclude.* is no regular expression"):
        parse_settings("collectors:\n  bdev:\n    exclude: 'a('\n", tmp_path / "s.yaml")
