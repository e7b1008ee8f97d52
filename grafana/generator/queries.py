"""PromQL shared by dashboards.

A cluster without a name has no ``cluster`` label; ``cluster=~"$cluster"`` with the variable's All value
``.*`` selects it, and so does ``by (cluster, ...)``. Where several exporters see a node (or ``/metrics`` and
``/probe`` both have it), the highest value counts: ``max by`` comes before any sum, as in the recording rules.
"""

from __future__ import annotations

from typing import Final

KEYS: Final = "cluster, node_id, hostname"
BDEV_KEYS: Final = "cluster, node_id, hostname, pool_id, pool_name"
WORKER_KEYS: Final = "cluster, node_id, hostname, worker_id"
CLUSTER: Final = 'cluster=~"$cluster"'
NODE: Final = 'cluster=~"$cluster", node_id=~"$node"'
FOUND: Final = 'cluster=~"$cluster", node_id=~"$node", node_id=~"$match"'
"""Nodes that are selected and that the search box finds."""
BUSIEST: Final = 'cluster=~"$cluster", node_id=~"$node", hostname=~"$busiest"'

UNNAMED: Final = "All"
"""Stands for the cluster label of a cluster without a name; as a variable's value it selects it."""

FEW: Final = 12
"""How many nodes get a card, a line or a row of their own where all would drown the reader."""

FEW_TILES: Final = 16
"""Up to so many nodes the tiles of a map have room for a hostname."""


def per_node(metric: str, matchers: str = NODE) -> str:
    """One value a node."""
    return f"max by ({KEYS}) ({metric}{{{matchers}}})"


def per_worker(metric: str, matchers: str = NODE) -> str:
    """One value a worker."""
    return f"max by ({WORKER_KEYS}) ({metric}{{{matchers}}})"


def per_device(metric: str, matchers: str = NODE) -> str:
    """One value a block device, or array."""
    return f"max by ({BDEV_KEYS}) ({metric}{{{matchers}}})"


def linkable(expression: str) -> str:
    """`expression` with a ``cluster`` label on every series, for links to other dashboards."""
    return f'label_replace({expression}, "cluster", "{UNNAMED}", "cluster", "")'


def named(expression: str, matchers: str) -> str:
    """`expression`, one value a node, with a label ``name`` for tiles: id and host of few nodes, the id of many."""
    one = linkable(expression)
    both = f'label_join({one}, "name", " · ", "node_id", "hostname")'
    number = f'label_join({one}, "name", "", "node_id")'
    return f"({both} and on () {_few(matchers)}) or ({number} unless on () {_few(matchers)})"


IN_BLOCK: Final = 'node_id=~"${block:raw}"'
"""Nodes of the hundred ``$block``, a regular expression of ids; raw, for Grafana escapes values of a choice."""


def blocks(matchers: str) -> str:
    """One series a hundred of node ids, with the labels ``block`` (see `IN_BLOCK`) and ``name``."""
    hundreds = (
        f'label_replace({per_node("clio_node_up", matchers)}, "hundred", "$1", "node_id", "(.*?).{{1,2}}")'
    )
    first = f'label_replace(max by (hundred) ({hundreds}), "block", "..?", "", "")'
    named = f'label_replace({first}, "name", "0 to 99", "", "")'
    block = f'label_replace({named}, "block", "$1..", "hundred", "(.+)")'
    return f'label_replace({block}, "name", "${{1}}00 to ${{1}}99", "hundred", "(.+)")'


def _few(matchers: str) -> str:
    return f"(count({per_node('clio_node_up', matchers)}) <= {FEW_TILES})"


def status(matchers: str) -> str:
    """0 down, 1 hung, 2 up but not well (health score under 60), 3 up; one value a node."""
    # As in ClioNodeHung: where two exporters ask a node, it is down when neither gets an answer.
    down = f"max by ({KEYS}) (clio_node_up{{{matchers}}}) == 0"
    hung = f'(max by ({KEYS}) (clio_node_down_info{{reason="hung", {matchers}}}) and {down})'
    unwell = (
        f"2 * (max by ({KEYS}) (clio_node_up{{{matchers}}}) == 1 "
        f"and max by ({KEYS}) (node:clio_health:score{{{matchers}}}) < 60)"
    )
    return f"{hung} or {unwell} or 3 * max by ({KEYS}) (clio_node_up{{{matchers}}})"


def status_with_leader(matchers: str) -> str:
    """As `status`, and 4 for a leader that is well."""
    leader = f"max by ({KEYS}) (clio_node_leader{{{matchers}}}) == 1"
    return f"4 * (({leader}) and ({status(matchers)}) == 3) or {status(matchers)}"


def severity(keys: str, matchers: str) -> str:
    """The worst severity of the CLIO alerts that fire: 3 critical, 2 warning, 1 anything else; one value by `keys`."""

    def firing(which: str) -> str:
        return f'max by ({keys}) (ALERTS{{alertname=~"Clio.+", alertstate="firing", {which}, {matchers}}})'

    known = "3 * {} or 2 * {}".format(firing('severity="critical"'), firing('severity="warning"'))
    return f"{known} or " + firing('severity!~"critical|warning"')


def address(matchers: str) -> str:
    """1 a node, with its IP address as label ``ip``: what the runtime reports, else where it is asked."""
    asked = f'label_replace(clio_node_info{{{matchers}}}, "ip", "$1", "address", "(.*)")'
    reported = f'label_replace({asked}, "ip", "$1", "ip_address", "(.+)")'
    return f"max by ({KEYS}, ip) ({reported})"


def with_address(expression: str, matchers: str) -> str:
    """`expression`, one value a node, with the label ``ip`` added."""
    return f"({expression}) * on ({KEYS}) group_left (ip) {address(matchers)}"


def actionable(expression: str) -> str:
    """`expression` with texts for links to the control API: ``restart``, ``shutdown``, and ``which``.

    The last is the query of the address. It names the host, so that the API refuses to act on another one
    that got the number meanwhile, and the cluster where it has a name, as the API asks for where it serves
    several.
    """
    both = f'label_join({expression}, "which", "&cluster=", "hostname", "cluster")'
    named = f'label_replace({both}, "which", "?hostname=$1", "which", "(.+?)(?:&cluster=)?")'
    texts = f'label_replace({named}, "restart", "Restart", "", "")'
    return f'label_replace({texts}, "shutdown", "Shut down", "", "")'


def of_type(expression: str, matchers: str = NODE) -> str:
    """Device series with the label ``type`` added; keeps the labels of `expression`."""
    info = f"max by (cluster, node_id, hostname, pool_id, type) (clio_bdev_info{{{matchers}}})"
    return f"{expression} * on (cluster, node_id, hostname, pool_id) group_left (type) {info}"


def by_type(expression: str, matchers: str = NODE, keys: str = "cluster, type") -> str:
    """Sum of device series by tier."""
    return f"sum by ({keys}) ({of_type(expression, matchers)})"


def round_trip(matchers: str) -> str:
    """Seconds of one small question, one value a node that is up."""
    return per_node("clio_node_round_trip_seconds", matchers)


def rate(counter: str, matchers: str = NODE, window: str = "$__rate_interval") -> str:
    """Increase a second of a worker's or a device's counter, one value for each of them."""
    keys = WORKER_KEYS if counter.startswith("clio_worker_") else BDEV_KEYS
    return f"max by ({keys}) (rate({counter}{{{matchers}}}[{window}]))"


def work(matchers: str) -> str:
    """Tasks a second of each worker beyond those that the exporters' own questions cause.

    A question is a task, and the sending of its answer is one of another worker: what asking costs is taken
    off each worker in full, which hides less than one task of others a question (measured on an idle 2.3.2:
    7 questions a scrape are 5 tasks of one worker and 7 of another).
    """
    asked = f"sum by ({KEYS}) (rate(clio_node_questions_total{{{matchers}}}[$__rate_interval]))"
    done = rate("clio_worker_tasks_processed_total", matchers)
    return f"clamp_min({done} - on ({KEYS}) group_left () {asked}, 0) or {done}"


# A node's card is found by cluster and node id together: neither a hostname nor an id is unique across
# clusters, and a repeated panel has one variable only.
_CARD: Final = '"card", "/", "cluster", "node_id"'


def cards() -> str:
    """The nodes that get a card: those in the worst state first, with labels ``card`` and ``name``."""
    state = linkable(status(FOUND))
    named = f'label_join({state}, "name", " · ", "node_id", "hostname")'
    return f"bottomk({FEW}, label_join({named}, {_CARD}))"


def on_card(expression: str) -> str:
    """Those series of `expression`, one value a node, that belong to the card ``$card``."""
    chosen = 'label_replace(vector(1), "card", "$card", "", "")'
    return f"label_join({linkable(expression)}, {_CARD}) and on (card) {chosen}"
