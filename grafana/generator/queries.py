"""PromQL shared by dashboards.

A cluster without a name has no ``cluster`` label; ``cluster=~"$cluster"`` with the variable's All value
``.*`` selects it, and so does ``by (cluster, ...)``. Aggregating with ``max by`` also folds the duplicates
of two scrapes of one node (``/metrics`` and ``/probe``, or two exporters) into one.
"""

from __future__ import annotations

from typing import Final

KEYS: Final = "cluster, node_id, hostname"
BDEV_KEYS: Final = "cluster, node_id, hostname, pool_id, pool_name"
CLUSTER: Final = 'cluster=~"$cluster"'
NODE: Final = 'cluster=~"$cluster", node_id=~"$node"'
FOUND: Final = 'cluster=~"$cluster", node_id=~"$node", node_id=~"$match"'
"""Nodes that are selected and that the search box finds."""
BUSIEST: Final = 'cluster=~"$cluster", node_id=~"$node", hostname=~"$busiest"'

UNNAMED: Final = "All"
"""Stands for the cluster label of a cluster without a name; as a variable's value it selects it."""

BUSY_TURNS: Final = 10
"""Idle turns of a worker's loop since its last work up to which it counts as busy; as in the recording rules."""

FEW: Final = 12
"""How many nodes get a card, a line or a row of their own where all would drown the reader."""


def per_node(metric: str, matchers: str = NODE) -> str:
    """One value a node."""
    return f"max by ({KEYS}) ({metric}{{{matchers}}})"


def linkable(expression: str) -> str:
    """`expression` with a ``cluster`` label on every series, for links to other dashboards."""
    return f'label_replace({expression}, "cluster", "{UNNAMED}", "cluster", "")'


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


def rate(counter: str, matchers: str = NODE) -> str:
    """Increase a second."""
    return f"rate({counter}{{{matchers}}}[$__rate_interval])"


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
