"""What `/probe?debug=true` says: who was asked, what came back and how long it took."""

from __future__ import annotations

from collections.abc import Iterator

from clio_exporter.snapshot import NodeSnapshot


def report(node: NodeSnapshot) -> Iterator[str]:
    """Lines about one node, for people."""
    member = node.member
    yield f"target: {member.target}"
    yield f"cluster: {member.cluster or '(without a name)'}"
    yield f"node id: {member.node_id}"
    yield f"hostname: {member.hostname}"
    yield "state: up" if node.failure is None else f"state: down ({node.failure.reason}): {node.failure}"
    if node.session is not None:
        generation = node.session.generation
        yield f"protocol generation: {'not known' if generation is None else generation.name}"
        if node.session.node_id is not None:
            yield f"calls itself: node {node.session.node_id}, {node.session.hostname or 'no name'}"
    if node.round_trip is not None:
        yield f"round trip of one small question: {node.round_trip * 1000:.1f} ms"
    for topic, result in node.results.items():
        outcome = "ok" if result.error is None else f"failed ({result.error.reason}): {result.error}"
        yield f"{topic.value}: {outcome}, {result.seconds * 1000:.1f} ms after the start"
    took = "not done at the deadline" if node.duration is None else f"{node.duration * 1000:.1f} ms"
    yield f"everything: {took}"
