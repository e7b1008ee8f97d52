"""By which labels nodes, clusters and targets of /probe go."""

from __future__ import annotations

from pathlib import Path

from clio_client.config.runtime_files import ConfigFile
from clio_client.config.settings import RuntimeSettings
from clio_client.membership import Member
from clio_client.transport.interface import NodeAddress
from clio_exporter.labels import cluster_labels, config_labels, node_labels
from clio_exporter.probe_targets import ForeignTargets


def test_a_named_cluster_is_in_the_labels() -> None:
    member = Member("east", 1, "a", NodeAddress("a"))
    assert node_labels(member) == 'cluster="east",node_id="1",hostname="a"'
    assert cluster_labels("east") == 'cluster="east"'


def test_a_cluster_without_a_name_is_not() -> None:
    assert node_labels(Member("", 0, "a", NodeAddress("a"))) == 'node_id="0",hostname="a"'
    assert cluster_labels("") == ""


def test_what_a_file_says_is_of_its_node_or_of_the_cluster_that_shares_it() -> None:
    member = Member("east", 1, "a", NodeAddress("a"))
    own, shared = (ConfigFile(whose, Path("clio.yaml"), None, None) for whose in (member, None))
    assert config_labels(own, "east") == node_labels(member)
    assert config_labels(shared, "east") == 'cluster="east"'
    assert config_labels(shared, "") == ""


def test_foreign_targets_are_remembered_up_to_a_limit_and_have_no_number() -> None:
    targets = ForeignTargets(RuntimeSettings(reply_address="10.0.0.1"), limit=2)
    a = targets.find("a", 1)
    assert a.target == "a:1"
    assert node_labels(a) == 'node_id="",hostname="a"'
    assert a.address.reply_address == "10.0.0.1"
    targets.find("b", 1)
    assert targets.find("a", 1) is a
    targets.find("c", 1)
    assert {m.hostname for m in targets.members()} == {"a", "c"}
