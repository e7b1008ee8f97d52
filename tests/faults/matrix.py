"""What can go wrong, what is exported then, and which test shows it: the table of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Fault:
    """A row of the table.

    Attributes:
        name: what goes wrong.
        node: the simulated node that has the fault in `test_nodes.py`, all at the same time; None elsewhere.
        makes: the simulator's fault, where it is one.
        reasons: of `clio_node_down_info`; empty: the node is up.
        exported: in words.
        test: file, below tests/, and name of the test.
    """

    name: str
    exported: str
    test: str
    node: int | None = None
    makes: str = ""
    reasons: tuple[str, ...] = ()


_NODES: Final = "faults/test_nodes.py::test_what_is_exported"
_CHANGES: Final = "faults/test_changes.py::test_"
_HOST: Final = "faults/test_host.py::test_"
_DISK: Final = "faults/test_full_disk.py::test_"

DOWN: Final = "`clio_node_up` 0 and who it is, nothing else of the node"
WHOLE: Final = "everything"

FAULTS: Final = (
    Fault("connections refused", DOWN, _NODES, 2, "refused", ("refused",)),
    Fault("packets dropped (black hole)", DOWN, _NODES, 13, "", ("unreachable",)),
    Fault("name service slow", DOWN, _NODES, 15, "", ("unreachable",)),
    Fault("connects, then is mute", DOWN, _NODES, 3, "hang", ("hung",)),
    Fault("another server on the port", DOWN, _NODES, 9, "non-zmq", ("hung",)),
    Fault("process stopped (SIGSTOP)", DOWN, _NODES, 14, "", ("hung",)),
    Fault("reads and never answers", DOWN, _NODES, 4, "silent", ("hung",)),
    Fault("takes a second an answer", WHOLE, _NODES, 5, "slow:1"),
    Fault("garbage for answers", DOWN, _NODES, 6, "garbage", ("malformed",)),
    Fault("truncated answers", DOWN, _NODES, 7, "truncated:120", ("malformed",)),
    Fault("answers cut before their number", DOWN, _NODES, 8, "truncated:71", ("hung",)),
    Fault("answers of 64 MB", DOWN, _NODES, 16, "huge:64", ("hung", "connection_lost")),
    Fault("every answer twice", WHOLE, _NODES, 10, "duplicated"),
    Fault("somebody else's answers", DOWN, _NODES, 11, "wrong-id", ("hung",)),
    Fault("wall clock a day ahead", f"{WHOLE}, with the node's own timestamps", _NODES, 12, "clock:86400"),
    Fault(
        "wall clock jumps, there and back", f"{WHOLE}; counters go on", f"{_CHANGES}a_clock_that_jumps"
    ),
    Fault("a node says another's number", f"{WHOLE}, under the hostfile's numbers; logged once",
          f"{_CHANGES}nodes_that_have_each_others_numbers"),
    Fault("killed in mid-scrape", DOWN, f"{_CHANGES}a_node_that_is_killed_in_mid_scrape"),
    Fault("restarted", f"{WHOLE} by the next scrape but one, counters from 0",
          f"{_CHANGES}a_node_that_is_restarted"),
    Fault("hostfile broken or gone", "the old nodes, `clio_cluster_membership_success` 0",
          f"{_CHANGES}a_hostfile_that_breaks"),
    Fault("hostfile changed during a scrape", "the old nodes in this scrape, the new ones in the next",
          f"{_CHANGES}a_hostfile_that_changes_during_a_scrape"),
    Fault("reply port taken", f"{WHOLE}; the next port is taken and logged",
          "integration/test_bad_input.py::test_a_taken_reply_port_is_stepped_over_and_logged"),
    Fault("file descriptors used up", "nodes that are connected to; the others are down until there are some",
          f"{_HOST}file_descriptors_used_up"),
    Fault("disk full under the log", WHOLE, f"{_HOST}a_full_disk_under_the_log"),
    Fault("disk full under the audit log", "nothing is done that cannot be written down: 503",
          f"{_DISK}nothing_is_done_while_the_audit_log_cannot_be_written"),
    Fault("disk full under operations", "none begins, none is shown that is not written down: 503",
          f"{_DISK}an_operation_that_cannot_be_written_down_does_not_begin"),
    Fault("disk full in mid-operation", "no further node is begun; it has failed, interrupted after a start",
          f"{_DISK}an_operation_under_way_begins_no_further_node"),
    Fault("disk full at the first start", "it ends with the reason; no token, and no part of one, is left",
          f"{_DISK}no_token_is_made_where_there_is_no_room"),
    Fault("disk full under tokens", "the new line is refused, the old ones hold",
          f"{_DISK}a_token_is_added_whole_or_not_at_all"),
    Fault("disk full under `known_hosts`", "the new host is refused, known ones are reached",
          f"{_DISK}a_host_key_is_remembered_whole_or_not_at_all"),
    Fault("disk full under a job's marks", "the new one is an error, the others are kept",
          f"{_DISK}a_mark_that_is_not_kept_is_an_error"),
    Fault("disk full under `scrape --output`", "the old file",
          f"{_DISK}a_file_that_is_replaced_stays_the_old_one"),
    Fault("a tenth of 1,000 nodes hung", "everything of the other nine tenths",
          "integration/test_scale.py::test_a_tenth_hung_costs_the_rest_nothing"),
)  # fmt: skip
"""In the order of the table. Nodes 0 and 1 of `test_nodes.py` are healthy, and whole in all of it."""


def table() -> Iterator[str]:
    """The rows as lines of Markdown."""
    yield "| fault | what is exported | reason | test |"
    yield "|---|---|---|---|"
    for fault in FAULTS:
        reasons = " or ".join(f"`{reason}`" for reason in fault.reasons)
        yield f"| {fault.name} | {fault.exported} | {reasons} | `{fault.test.partition('::')[0]}` |"
