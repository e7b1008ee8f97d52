"""The reference in docs/, and the names of all families."""

from __future__ import annotations

import re

import pytest

from clio_exporter.collectors import COLLECTORS, reference
from clio_exporter.exposition import Family, Kind

FAMILIES = reference.all_families()


def test_every_family_is_on_the_page() -> None:
    page = reference.render()
    for family in FAMILIES:
        assert page.count(f"| `{family.name}` |") == 1


def test_names_are_unique() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    # OpenMetrics: no two families with one name, and no family whose samples look like another's.
    kinds = {(f.base_name, f.kind) for f in FAMILIES}
    assert len(kinds) == len(names)
    names_in_openmetrics = [f.base_name for f in FAMILIES]
    assert len(set(names_in_openmetrics)) == len(names_in_openmetrics)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_names_follow_the_rules_of_prometheus(family: Family) -> None:
    assert re.fullmatch(r"clio(_[a-z0-9]+)+", family.name)
    assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
    assert family.name.endswith("_info") == (family.kind is Kind.INFO)
    assert not re.search(r"_(count|sum|bucket|created|gauge|counter)$", family.name)
    # Base units only.
    assert not re.search(
        r"_(ms|us|ns|milliseconds|microseconds|minutes|hours|days|kb|mb|gb|mbps|percent|pct)(_|$)",
        family.name,
    )
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", label) for label in family.labels)
    assert len(set(family.labels)) == len(family.labels)
    assert not {"node_id", "hostname", "cluster", "job", "instance", "le", "quantile"} & set(family.labels)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_every_family_is_explained(family: Family) -> None:
    assert family.help.endswith(".")
    assert family.help[0].isupper() or family.help[0].isdigit()
    assert "|" not in family.help + family.source
    assert family.source


def test_collectors_have_names_for_flags() -> None:
    names = [collector.name for collector in COLLECTORS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+", name) for name in names)
    assert {"node", "worker", "bdev", "pool", "cte", "config"} <= set(names)
