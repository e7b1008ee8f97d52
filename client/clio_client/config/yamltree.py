"""YAML text to a checked node tree that knows its lines.

Only YAML's own scalar types are constructed. Before anything is constructed the tree is bounded in depth
and in size with its aliases expanded, and duplicate keys are refused: PyYAML would keep the last one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from clio_client.config.errors import ConfigError, quoted

MAX_DEPTH = 64
MAX_NODES = 100_000

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class WrittenInt(int):
    """An integer that remembers how the file wrote it (`0x10`, `010`)."""

    text: str


class WrittenFloat(float):
    """A float that remembers how the file wrote it (`301.0`, `512.10`, `0.20`)."""

    text: str


class _Constructor(yaml.SafeLoader):
    """SafeLoader for nodes that are composed already; dates and binary data stay text."""


def _construct_int(constructor: _Constructor, node: yaml.ScalarNode) -> int | str:
    try:
        number = WrittenInt(constructor.construct_yaml_int(node))
    except (ValueError, LookupError):
        return str(node.value)  # an explicit !!int tag on something else
    number.text = node.value
    return number


def _construct_float(constructor: _Constructor, node: yaml.ScalarNode) -> float | str:
    try:
        number = WrittenFloat(constructor.construct_yaml_float(node))
    except (ValueError, LookupError):
        return str(node.value)
    number.text = node.value
    return number


def _construct_text(_: _Constructor, node: yaml.ScalarNode) -> str:
    return str(node.value)


_Constructor.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Constructor.add_constructor("tag:yaml.org,2002:float", _construct_float)
for _tag in ("timestamp", "binary"):
    _Constructor.add_constructor(f"tag:yaml.org,2002:{_tag}", _construct_text)


def compose(text: str, source: str) -> yaml.Node | None:
    """The node tree of the one YAML document in `text`, None when it is empty.

    Raises `ConfigError` (with the line) for malformed YAML, more than one document, duplicate keys,
    nesting deeper than 64 or more than 100,000 values after aliases are expanded.
    """
    try:
        _check_events(text, source)
        node: yaml.Node | None = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(
            source,
            f"malformed YAML: {error.problem or error.context or 'unknown error'}",
            "Correct the syntax here or just above (indentation, quotes, ':' and '-')",
            # What is missing at the end of the file is reported for the line after its last.
            line=None if mark is None else min(mark.line, text.rstrip().count("\n")) + 1,
        ) from None
    except yaml.reader.ReaderError as error:
        raise ConfigError(
            source,
            f"malformed YAML: character {error.character!r} is not allowed",
            "Remove the control character or save the file as plain UTF-8 text",
            line=text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else None,
        ) from None
    except (ValueError, OverflowError) as error:  # an escape beyond Unicode, without libyaml
        raise ConfigError(
            source, f"malformed YAML: {error}", "Check the escape sequences in double quotes"
        ) from None
    if node is not None:
        _check_tree(node, source)
    return node


def construct(node: yaml.Node | None, source: str) -> Any:
    """The plain object of a composed tree (None for an empty document).

    Numbers are `WrittenInt` and `WrittenFloat`. Raises `ConfigError` for tags other than YAML's own.
    """
    if node is None:
        return None
    try:
        return _Constructor("").construct_document(node)
    except yaml.constructor.ConstructorError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(
            source,
            f"unusable YAML: {error.problem}",
            "Use plain mappings, lists, strings, numbers, booleans and null; no custom tags",
            line=None if mark is None else mark.line + 1,
        ) from None
    except (ValueError, LookupError, OverflowError):
        raise ConfigError(
            source,
            "unusable YAML: a value does not have the type that its !! tag says",
            "Remove the tag or correct the value",
        ) from None


def line_of(node: yaml.Node) -> int:
    """The 1-based line a node starts in."""
    return int(node.start_mark.line) + 1


def child(node: yaml.Node | None, *path: str | int) -> yaml.Node | None:
    """The node at `path` (keys and indices) below `node`; None when there is none."""
    for step in path:
        if isinstance(node, yaml.MappingNode) and isinstance(step, str):
            node = next((value for key, value in node.value if key.value == step), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step] if step < len(node.value) else None
        else:
            return None
    return node


def _check_events(text: str, source: str) -> None:
    """Refuse deep nesting before composing, which recurses."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                mark = event.start_mark
                raise _too_deep(source, None if mark is None else mark.line + 1)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_tree(root: yaml.Node, source: str) -> None:
    """Refuse duplicate keys, cycles, and what is too deep or too large once aliases are expanded."""
    measured: dict[int, tuple[int, int]] = {}  # id(node): (values, depth), aliases expanded
    open_nodes: set[int] = set()

    def measure(node: yaml.Node, level: int) -> tuple[int, int]:
        if id(node) in open_nodes:
            raise ConfigError(
                source, "an alias refers to its own ancestor", "Remove the alias (*)", line=line_of(node)
            )
        if id(node) in measured:
            return measured[id(node)]
        if level > MAX_DEPTH:
            raise _too_deep(source, line_of(node))
        open_nodes.add(id(node))
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, source)
        sizes = [measure(below, level + 1) for below in _below(node)]
        size = 1 + sum(values for values, _ in sizes)
        depth = 1 + max((below for _, below in sizes), default=0)
        if size > MAX_NODES:
            raise ConfigError(
                source,
                f"more than {MAX_NODES} values (aliases expanded)",
                "Remove aliases (*) of large sections or shorten the file",
                line=line_of(node),
            )
        if depth > MAX_DEPTH + 1:
            raise _too_deep(source, line_of(node))
        open_nodes.discard(id(node))
        measured[id(node)] = size, depth
        return size, depth

    measure(root, 0)


def _below(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _check_keys(node: yaml.MappingNode, source: str) -> None:
    seen: dict[tuple[str, str], yaml.Node] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(
                source, "a key is a list or mapping", "Use a plain string as the key", line=line_of(key)
            )
        first = seen.setdefault((key.tag, key.value), key)
        if first is not key:
            raise ConfigError(
                source,
                f"the key {quoted(key.value)} is already in line {line_of(first)}",
                "Keep one of the two",
                line=line_of(key),
            )


def _too_deep(source: str, line: int | None) -> ConfigError:
    return ConfigError(
        source, f"nested more than {MAX_DEPTH} levels deep", "Flatten this part of the file", line=line
    )
