"""The search box of Topology without a control API: what Prometheus alone can find.

Prometheus compares labels with texts that stand in a query, and Grafana writes there what is typed into the
box. So a part of a hostname is a regular expression; of a list of node ids each place is cut out by one of
its own. A range has nothing to be compared with: numbers are not labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

PLACES: Final = 12
"""Node ids that a list may have."""

DESCRIPTION: Final = (
    f"A node id (3), a list of up to {PLACES} (1,3,5), or a part of a hostname. Ranges (1-20) and "
    "IP addresses need the control API."
)

# In backquotes nothing is an escape; the format keeps what is typed from being a regular expression.
_TYPED: Final = 'label_replace(vector(1), "typed", `${search:raw}`, "", "")'
_IDS: Final = "[0-9, ]+"


def query(cluster: str) -> str:
    """The nodes that the box finds, as PromQL; `cluster` is the matcher of the clusters that are selected."""
    nodes = f"clio_node_up{{{cluster}}}"
    cut = " or ".join(
        f'label_replace({_TYPED}, "node_id", "$1", "typed", "(?:[^,]*,){{{place}}} *([0-9]+) *(?:,.*)?")'
        for place in range(PLACES)
    )
    by_id = f"{nodes} and on (node_id) ({cut})"
    named = f"clio_node_up{{{cluster}, hostname=~`(?i).*${{search:regex}}.*`}}"
    # A list of ids is not looked for in hostnames, which may have digits too.
    is_list = f'label_replace({_TYPED}, "list", "yes", "typed", "{_IDS}")'
    by_name = f'label_replace({named}, "list", "yes", "", "") unless on (list) {is_list}'
    return f"({by_id}) or ({by_name})"


def variable(found: Mapping[str, Any], cluster: str) -> dict[str, Any]:
    """The variable of the nodes found, asked of Prometheus instead of the control API."""
    return {
        **found,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "description": "The ids of the nodes that the search box finds.",
        "query": {"query": f"query_result({query(cluster)})", "refId": "match", "qryType": 3},
        "regex": '/[{,]node_id="([^"]+)"/',
        "multi": True,
        "includeAll": True,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }
