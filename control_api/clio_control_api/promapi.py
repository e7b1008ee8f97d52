"""The part of Prometheus's HTTP API that a Grafana variable uses, over the node search.

One metric exists here, `clio_node_search`, with the labels of a node. Its `search` label is not a filter
but the search itself: `clio_node_search{search="1-20"}` has one series for every node the search means.
`node_id_regex` is the same on all of them: a regular expression that matches those ids, `.*` for all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from clio_client.search import SearchError, parse_search
from clio_control_api.api import TopologyNode
from clio_control_api.errors import BadRequest

METRIC: Final = "clio_node_search"
LABELS: Final = ("__name__", "cluster", "hostname", "ip_address", "node_id", "node_id_regex", "search")
NOTHING: Final = "^$"
"""What `node_id_regex` would be for a search that means no node: no id is empty."""

_MAX_QUERY: Final = 4096
_MAX_OPTIONS: Final = 256
_MAX_ANSWER: Final = 4_000_000  # characters
_PLAIN_IDS: Final = 16
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_SPACE = re.compile(r"[ \t\r\n]*", re.ASCII)
_OPERATOR = re.compile(r"=~|!~|!=|=")
_LITERAL = re.compile(r"[^\\.+*?()|\[\]{}^$]*")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}


class PromError(BadRequest):
    """Bad query; answered in Prometheus's own form."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """One `label op "value"` of a selector."""

    label: str
    operator: str
    value: str
    options: frozenset[str] = frozenset()
    """The texts a regular expression stands for, where it is no wildcard."""

    @classmethod
    def compiled(cls, label: str, operator: str, value: str) -> Matcher:
        """The matcher; of regular expressions only wildcards and alternatives of plain texts are read.

        Raises:
            PromError: another regular expression (running one from a request could take for ever), or one
                with too many alternatives.
        """
        if operator in ("=", "!=") or value in (".*", ".+"):
            return cls(label, operator, value)
        inner = value[1:-1] if value.startswith("(") and value.endswith(")") else value
        options = inner.split("|")
        if len(options) > _MAX_OPTIONS:
            raise PromError(f"{label} has {len(options)} alternatives, more than {_MAX_OPTIONS}")
        return cls(label, operator, value, frozenset(map(_unescape_regex, options)))

    def matches(self, value: str) -> bool:
        """Whether a label value passes."""
        if self.operator in ("=", "!="):
            return (value == self.value) == (self.operator == "=")
        if self.value == ".*":
            found = True
        elif self.value == ".+":
            found = value != ""
        else:
            found = value in self.options
        return found == (self.operator == "=~")


@dataclass(frozen=True, slots=True)
class Selector:
    """A parsed selector: the search, the cluster, and matchers on the other labels."""

    metric: str
    search: str
    matchers: tuple[Matcher, ...]


def parse_selector(text: str) -> Selector:
    """An instant vector selector of PromQL.

    Raises:
        PromError: it is none; the message gives an example.
    """
    if len(text) > _MAX_QUERY:
        raise PromError(f"the query has {len(text)} characters, more than {_MAX_QUERY}")
    at = _skip(text, 0)
    name = _NAME.match(text, at)
    metric = name[0] if name else ""
    at = _skip(text, name.end() if name else at)
    matchers: list[Matcher] = []
    if at < len(text) and text[at] == "{":
        at = _skip(text, at + 1)
        while at < len(text) and text[at] != "}":
            matcher, at = _matcher(text, at)
            matchers.append(matcher)
            at = _skip(text, at)
            if at < len(text) and text[at] == ",":
                at = _skip(text, at + 1)
            elif at >= len(text) or text[at] != "}":
                raise _bad(text)
        if at >= len(text):
            raise _bad(text)
        at = _skip(text, at + 1)
    if at != len(text) or (not metric and not matchers):
        raise _bad(text)
    search = ""
    others = []
    for matcher in matchers:
        if matcher.label == "search":
            if matcher.operator != "=":
                raise PromError("the label search takes only '=': it is the text of the search box")
            search = matcher.value
        elif matcher.label == "__name__":
            if matcher.operator != "=":
                raise PromError("the label __name__ takes only '='")
            metric = matcher.value
        else:
            others.append(matcher)
    try:
        parse_search(search)
    except SearchError as error:
        raise PromError(str(error)) from None
    return Selector(metric, search, tuple(others))


@dataclass(frozen=True, slots=True)
class Selection:
    """The nodes of a cluster that a search means and a selector lets pass: series, made one at a time."""

    cluster: str
    search: str
    regex: str
    nodes: Sequence[TopologyNode]

    def __iter__(self) -> Iterator[dict[str, str]]:
        for node in self.nodes:
            yield self.labels(node)

    def labels(self, node: TopologyNode) -> dict[str, str]:
        """The label set of one node; `hostname` is that of the metrics."""
        return {
            "__name__": METRIC,
            "cluster": self.cluster,
            "hostname": node.hostname,
            "ip_address": str(node.document["ip_address"]),
            "node_id": str(node.document["node_id"]),
            "node_id_regex": self.regex,
            "search": self.search,
        }


def select(
    selectors: Sequence[Selector], clusters: Mapping[str, Sequence[TopologyNode]]
) -> tuple[Selection, ...]:
    """What several selectors select among the nodes of all clusters, each series once, as in Prometheus.

    Whether it can be answered is known when this returns; the series themselves are not made yet.

    Raises:
        PromError: it is too much to answer with.
    """
    by_search: dict[str, list[Selector]] = {}
    for selector in selectors:
        if selector.metric in ("", METRIC):
            by_search.setdefault(selector.search, []).append(selector)
    found = []
    size = 0
    for search, alternatives in by_search.items():
        for cluster, nodes in clusters.items():
            selection = _selection(search, alternatives, cluster, nodes)
            for labels in selection:
                size += sum(map(len, labels.values()))
                if size > _MAX_ANSWER:
                    raise PromError(f"more than {_MAX_ANSWER} characters to answer with; narrow the search")
            found.append(selection)
    return tuple(found)


def _selection(
    text: str, alternatives: Sequence[Selector], cluster: str, nodes: Sequence[TopologyNode]
) -> Selection:
    """The nodes that a search means, and that one of several selectors with this search lets pass."""
    search = parse_search(text)
    meant = [node for node in nodes if node.is_meant(search)]
    everything = search.ranges == () and not search.keyword
    regex = ".*" if everything else ids_regex([int(node.document["node_id"]) for node in meant])
    whole = Selection(cluster, text, regex, meant)
    if any(not selector.matchers for selector in alternatives):
        return whole
    return Selection(
        cluster, text, regex,
        [node for node in meant if _passes(whole.labels(node), alternatives)],
    )  # fmt: skip


def _passes(labels: Mapping[str, str], alternatives: Sequence[Selector]) -> bool:
    return any(
        all(matcher.matches(labels.get(matcher.label, "")) for matcher in selector.matchers)
        for selector in alternatives
    )


def ids_regex(ids: Sequence[int]) -> str:
    """A regular expression for these node ids, short where many of them are neighbours.

    Every series carries it: as a list of ids, a thousand nodes made an answer of 4 MB, sixteen times over.
    """
    if len(ids) <= _PLAIN_IDS:
        return "|".join(map(str, ids))
    parts: list[str] = []
    wanted = sorted(set(ids))
    first = previous = wanted[0]
    for number in (*wanted[1:], -1):
        if number != previous + 1:
            parts += _range_regex(first, previous)
            first = number
        previous = number
    return "|".join(parts)


def _range_regex(low: int, high: int) -> list[str]:
    """Alternatives for the decimal numbers from `low` to `high`, such as 8-20: [8-9], 1[0-9], 20."""
    parts = []
    while low <= high:
        size = 1  # a block of all numbers that end in so many digits
        while low and low % (size * 10) == 0 and low + size * 10 - 1 <= high:
            size *= 10
        digit = low // size % 10
        last = digit
        while last < 9 and low + (last - digit + 2) * size - 1 <= high:
            last += 1
        before = str(low // size // 10) if low // size >= 10 else ""
        varying = str(digit) if digit == last else f"[{digit}-{last}]"
        parts.append(before + varying + "[0-9]" * (len(str(size)) - 1))
        low += (last - digit + 1) * size
    return parts


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _matcher(text: str, at: int) -> tuple[Matcher, int]:
    label = _LABEL.match(text, at)
    if label is None:
        raise _bad(text)
    at = _skip(text, label.end())
    operator = _OPERATOR.match(text, at)
    if operator is None:
        raise _bad(text)
    at = _skip(text, operator.end())
    value, at = _string(text, at)
    return Matcher.compiled(label[0], operator[0], value), at


def _string(text: str, at: int) -> tuple[str, int]:
    quote = text[at : at + 1]
    if quote not in ('"', "'", "`") or not quote:
        raise _bad(text)
    at += 1
    out: list[str] = []
    while at < len(text):
        char = text[at]
        if char == quote:
            return "".join(out), at + 1
        if char == "\\" and quote != "`":
            escaped = text[at + 1 : at + 2]
            if escaped not in _ESCAPES or not escaped:
                raise _bad(text)
            out.append(_ESCAPES[escaped])
            at += 2
            continue
        out.append(char)
        at += 1
    raise _bad(text)


def _unescape_regex(text: str) -> str:
    plain = re.sub(r"\\([\\.+*?()|\[\]{}^$-])", r"\1", text)
    if not _LITERAL.fullmatch(re.sub(r"\\[\\.+*?()|\[\]{}^$-]", "", text)):
        raise PromError("of regular expressions only .*, .+ and alternatives of plain texts (a|b) are read")
    return plain


def _bad(text: str) -> PromError:
    shown = ascii(text if len(text) <= 60 else text[:59] + "...")
    return PromError(f"cannot read the query {shown}; write for example {METRIC}{{search='1-20'}}")
