"""Template variables. They chain: data source, cluster, search text, the nodes it finds, node."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

from grafana.generator import queries

DATASOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
NODE_SEARCH: Final = models.DataSourceRef(type_val="prometheus", uid="${search_source}")
CONTROL_API_URL: Final = "http://localhost:5000"

_ALL: Final = models.VariableOption(selected=True, text=["All"], value=["$__all"])


class Ready(Builder[models.VariableModel]):
    """A finished variable where a builder is asked for."""

    def __init__(self, model: models.VariableModel) -> None:
        self._model = model

    def build(self) -> models.VariableModel:
        """The variable."""
        return self._model


def _query(name: str, label: str, description: str, promql: str) -> builders.QueryVariable:
    return (
        builders.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(DATASOURCE)
        .query({"query": promql, "refId": name, "qryType": 3 if promql.startswith("query_result(") else 1})
        # With the time range: a node that joins or fails shows at the next refresh.
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.NUMERICAL_ASC)
    )


def datasource() -> builders.DatasourceVariable:
    """The Prometheus to ask; the node search has a data source of the same type, which is left out."""
    return (
        builders.DatasourceVariable("datasource")
        .label("Data source")
        .description("The Prometheus that holds the clusters' metrics.")
        .type("prometheus")
        .regex("/^(?!.*node search).*$/i")
    )


def cluster() -> builders.QueryVariable:
    """Clusters by name; All combines them, and is what selects a cluster without a name."""
    return (
        _query("cluster", "Cluster", "All combines the clusters.", "label_values(clio_node_up, cluster)")
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(_ALL)
    )


def node() -> builders.QueryVariable:
    """Nodes by id, several or all."""
    return (
        _query(
            "node",
            "Node",
            "Node ids; All combines the nodes.",
            f"label_values(clio_node_up{{{queries.CLUSTER}}}, node_id)",
        )
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(_ALL)
    )


def found_node() -> builders.QueryVariable:
    """As `node`, of those that the search box finds."""
    promql = f'label_values(clio_node_up{{{queries.CLUSTER}, node_id=~"$match"}}, node_id)'
    return node().query({"query": promql, "refId": "node", "qryType": 1})


def one_node() -> builders.QueryVariable:
    """Exactly one node."""
    return _query(
        "node",
        "Node",
        "The node this page shows.",
        f"label_values(clio_node_up{{{queries.CLUSTER}}}, node_id)",
    )


def search() -> tuple[builders.TextBoxVariable, builders.DatasourceVariable, builders.QueryVariable]:
    """The search box, and hidden behind it the nodes it finds, as one regular expression of node ids.

    The last is asked of the control API, which speaks enough of Prometheus's HTTP API for this. While
    the API does not answer, Grafana keeps the variable's last value, which is at first ``.*``: all nodes.
    The data source is known by its name, as nobody can choose the uid of one that is made by hand.
    """
    source = (
        builders.DatasourceVariable("search_source")
        .label("Search by")
        .description(
            "The control API as a data source: one of type Prometheus with `node search` in its name."
        )
        .type("prometheus")
        .regex("/node search/i")
        .hide(models.VariableHide.HIDE_VARIABLE)
    )
    box = (
        builders.TextBoxVariable("search")
        .label("Search")
        .description("A node id (3), a range (1-20), a list (1,3,5), or a part of a hostname or IP address.")
        .default_value("")
    )
    found = (
        builders.QueryVariable("match")
        .label("Found nodes")
        .description("The node ids that the search box finds, as a regular expression.")
        .datasource(NODE_SEARCH)
        .query(
            {
                "query": f'label_values(clio_node_search{{{queries.CLUSTER}, search="$search"}}, node_id_regex)',
                "refId": "match",
                "qryType": 1,
            }
        )
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .current(models.VariableOption(selected=True, text=".*", value=".*"))
        .hide(models.VariableHide.HIDE_VARIABLE)
    )
    return box, source, found


def cards() -> builders.QueryVariable:
    """The nodes that get a card: text for people, value for queries (see `queries.on_card`)."""
    return (
        _query(
            "card",
            "Cards",
            f"The {queries.FEW} nodes that most need a look.",
            f"query_result({queries.cards()})",
        )
        # As the query sorts them, the worst first.
        .sort(models.VariableSort.DISABLED)
        .regex('/card="(?<value>[^"]+)".*[{,]name="(?<text>[^"]+)"/')
        .multi(True)
        .include_all(True)
        .current(_ALL)
        .hide(models.VariableHide.HIDE_VARIABLE)
    )


def blocks(matchers: str) -> builders.QueryVariable:
    """The hundreds of node ids that a map has a panel for: with more tiles in one, none could be read."""
    return (
        _query(
            "block",
            "Hundreds",
            "The nodes by hundreds of their ids.",
            f"query_result({queries.blocks(matchers)})",
        )
        .regex('/block="(?<value>[^"]+)".*[{,]name="(?<text>[^"]+)"/')
        .multi(True)
        .include_all(True)
        .current(_ALL)
        .hide(models.VariableHide.HIDE_VARIABLE)
    )


def busiest(expression: str, description: str) -> builders.QueryVariable:
    """The hostnames of the few nodes that lead by `expression`, so that lines do not drown the reader."""
    return (
        _query("busiest", "Busiest nodes", description, f"query_result(topk({queries.FEW}, {expression}))")
        .regex('/hostname="([^"]+)"/')
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(_ALL)
        .hide(models.VariableHide.HIDE_VARIABLE)
    )


def control_api(url: str = CONTROL_API_URL) -> Ready:
    """Where a browser reaches the control API. A constant: a link must not be able to change it."""
    built = builders.ConstantVariable("control_api").label("Control API").value(url).build()
    built.description = "Base URL of the control API as browsers reach it."
    built.hide = models.VariableHide.HIDE_VARIABLE
    built.current = models.VariableOption(selected=True, text=url, value=url)
    return Ready(built)


def text_filter(name: str, label: str, description: str) -> builders.TextBoxVariable:
    """A text box."""
    return builders.TextBoxVariable(name).label(label).description(description).default_value("")


def job(metric: str) -> builders.QueryVariable:
    """Prometheus jobs that have `metric`."""
    return (
        _query("job", "Job", "Prometheus's scrape job.", f"label_values({metric}, job)")
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(_ALL)
    )
