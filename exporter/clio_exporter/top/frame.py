"""What the cluster was at one moment, read from metrics, and rates between two moments. Pure functions."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from clio_client.search import Search

COLLECTORS: Final = frozenset({"node", "worker", "bdev"})
"""What is asked for."""

_PROCESSED: Final = "clio_worker_tasks_processed_total"
_READ: Final = "clio_bdev_read_bytes_total"
_WRITTEN: Final = "clio_bdev_written_bytes_total"
COUNTERS: Final = (_PROCESSED, _READ, _WRITTEN)
"""Metrics that rates are made of."""

_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")
_MAX_LABELS: Final = 1 << 17
_LONGEST_ID: Final = 10
"""Characters; what is longer is no number of a node."""
_LONGEST: Final = 60.0
"""Seconds over which a rate is still one of now."""
Labels = Mapping[str, str]
Sample = tuple[str, Labels, float]
"""A metric's name, labels and value."""
Key = tuple[str, str, str]


@dataclass(slots=True)
class Worker:
    """One worker; None: not told. `rate` is tasks a second."""

    active: bool | None = None
    queued: float | None = None
    blocked: float | None = None
    processed: float | None = None
    rate: float | None = None


@dataclass(slots=True)
class Device:
    """One block device; bytes, and bytes a second; None: not told."""

    name: str = ""
    kind: str = ""
    capacity: float | None = None
    free: float | None = None
    read: float | None = None
    written: float | None = None
    read_rate: float | None = None
    write_rate: float | None = None


@dataclass(slots=True)
class Node:
    """One node; ratios are 0 to 1, sizes bytes; None: not told, which a node that is down tells nothing."""

    cluster: str
    node_id: str
    hostname: str
    up: bool = False
    reason: str = ""
    leader: bool = False
    addresses: tuple[str, ...] = ()
    started: float | None = None
    cpu: float | None = None
    memory_total: float | None = None
    memory_free: float | None = None
    gpus: float | None = None
    gpu: float | None = None
    hbm_total: float | None = None
    hbm_used: float | None = None
    workers: dict[str, Worker] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Tells the node from others."""
        return self.cluster, self.node_id, self.hostname

    @property
    def number(self) -> int:
        """The node's id as a number; -1 where it is none."""
        return int(self.node_id) if self.node_id.isdecimal() and len(self.node_id) < _LONGEST_ID else -1

    @property
    def name(self) -> str:
        """The node, as it is called."""
        return f"{self.cluster}/{self.node_id}" if self.cluster else self.node_id

    @property
    def state(self) -> str:
        """`up`, `leader`, or why it is down."""
        return ("leader" if self.leader else "up") if self.up else self.reason or "down"

    @property
    def memory(self) -> float | None:
        """Share of the memory in use."""
        if not self.memory_total or self.memory_free is None:
            return None
        return 1 - self.memory_free / self.memory_total

    @property
    def queued(self) -> float | None:
        """Tasks in the workers' queues."""
        return _sum(worker.queued for worker in self.workers.values())

    @property
    def blocked(self) -> float | None:
        """Tasks that wait for others."""
        return _sum(worker.blocked for worker in self.workers.values())

    @property
    def tasks(self) -> float | None:
        """Tasks a second."""
        return _sum(worker.rate for worker in self.workers.values())

    @property
    def read(self) -> float | None:
        """Bytes a second read from its devices."""
        return _sum(device.read_rate for device in self.devices.values())

    @property
    def written(self) -> float | None:
        """Bytes a second written to its devices."""
        return _sum(device.write_rate for device in self.devices.values())

    @property
    def traffic(self) -> float | None:
        """Both."""
        return _sum((self.read, self.written))

    @property
    def fill(self) -> float | None:
        """Share of its devices' capacity in use."""
        return filled(self.devices.values())

    def is_meant(self, search: Search) -> bool:
        """Whether a search means it."""
        return search.matches(self.number, (self.hostname, *self.addresses))


@dataclass(frozen=True, slots=True)
class Frame:
    """All nodes at one moment; `at` is in seconds of a clock that only goes forward, or Unix time."""

    at: float
    nodes: Mapping[Key, Node] = field(default_factory=dict)
    counted: Mapping[Key, tuple[float, Node]] = field(default_factory=dict, repr=False)
    """When each node last told of workers or devices, and what: a rate needs no frame in between."""
    title: str = ""
    """Which moment of what it is, where that is not now."""

    def tiers(self) -> dict[str, list[Device]]:
        """Devices by their kind."""
        found: dict[str, list[Device]] = {}
        for node in self.nodes.values():
            for device in node.devices.values():
                if device.kind:
                    found.setdefault(device.kind, []).append(device)
        return dict(sorted(found.items()))


def filled(devices: Iterable[Device]) -> float | None:
    """Share of the capacity in use, of the devices that tell both."""
    told = [(d.capacity, d.free) for d in devices if d.capacity is not None and d.free is not None]
    capacity = sum(size for size, _ in told)
    return 1 - sum(free for _, free in told) / capacity if capacity else None


def read_frame(text: str, at: float, before: Frame | None = None) -> Frame:
    """The frame of an exposition, with rates since each node told last, a minute ago at most.

    A line without a number, or without the label that says what it is about, tells nothing.
    """
    nodes = read_nodes(_samples(text))
    counted: dict[Key, tuple[float, Node]] = {}
    for key, node in nodes.items():
        last = before.counted.get(key) if before is not None else None
        if last is not None and last[0] < at <= last[0] + _LONGEST:
            _rates(node, last[1], at - last[0])
        if node.workers or node.devices:
            counted[key] = (at, node)
        elif last is not None:
            counted[key] = last
    return Frame(at, nodes, counted)


def read_nodes(samples: Iterable[Sample]) -> dict[Key, Node]:
    """The nodes that samples of `METRICS` tell of, without rates; others, and no numbers, are ignored."""
    nodes: dict[Key, Node] = {}
    for name, labels, value in samples:
        put = _READERS.get(name)
        if put is None or not math.isfinite(value):
            continue
        key = key_of(labels)
        node = nodes.get(key)
        if node is None:
            node = nodes[key] = Node(*key)
        with contextlib.suppress(KeyError):
            put(node, labels, value)
    return nodes


def put_rate(nodes: Mapping[Key, Node], counter: str, labels: Labels, rate: float) -> None:
    """Give a worker or device the rate of its counter (of `COUNTERS`), where it tells the counter, too."""
    node = nodes.get(key_of(labels))
    if node is None or not math.isfinite(rate):
        return
    worker = node.workers.get(labels.get("worker_id", ""))
    device = node.devices.get(labels.get("pool_id", ""))
    if counter == _PROCESSED and worker is not None and worker.processed is not None:
        worker.rate = rate
    elif counter == _READ and device is not None and device.read is not None:
        device.read_rate = rate
    elif counter == _WRITTEN and device is not None and device.written is not None:
        device.write_rate = rate


def key_of(labels: Labels) -> Key:
    """The node that a series is of."""
    return labels.get("cluster", ""), labels.get("node_id", ""), labels.get("hostname", "")


def _samples(text: str) -> Iterator[Sample]:
    """Those of an exposition that are read."""
    for line in text.splitlines():
        name, brace, rest = line.partition("{")
        if brace and name in _READERS:
            labels, _, value = rest.rpartition("} ")
            try:
                number = float(value)
            except ValueError:
                continue
            yield name, _labels(labels), number


def _rates(node: Node, old: Node, seconds: float) -> None:
    if node.started != old.started:
        return  # another run of the runtime: its counters began anew
    for number, worker in node.workers.items():
        if (was := old.workers.get(number)) is not None:
            worker.rate = _rate(worker.processed, was.processed, seconds)
    for pool, device in node.devices.items():
        if (had := old.devices.get(pool)) is not None:
            device.read_rate = _rate(device.read, had.read, seconds)
            device.write_rate = _rate(device.written, had.written, seconds)


def _rate(now: float | None, before: float | None, seconds: float) -> float | None:
    return None if now is None or before is None or now < before else (now - before) / seconds


def _sum(values: Iterable[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return sum(told) if told else None


_cache: dict[str, dict[str, str]] = {}


def _labels(text: str) -> Labels:
    """Labels of a series; the same texts come again with every frame."""
    found = _cache.get(text)
    if found is None:
        if len(_cache) >= _MAX_LABELS:
            _cache.clear()
        found = _cache[text] = {
            name: _ESCAPE.sub(lambda m: "\n" if m[1] == "n" else m[1], value) if "\\" in value else value
            for name, value in _LABEL.findall(text)
        }
    return found


_Reader = Callable[[Node, Labels, float], None]


def _node(attribute: str, read: Callable[[float], Any] = float) -> _Reader:
    return lambda node, _labels, value: setattr(node, attribute, read(value))


def _worker(attribute: str, read: Callable[[float], Any] = float) -> _Reader:
    def put(node: Node, labels: Labels, value: float) -> None:
        setattr(node.workers.setdefault(labels["worker_id"], Worker()), attribute, read(value))

    return put


def _device(attribute: str) -> _Reader:
    def put(node: Node, labels: Labels, value: float) -> None:
        device = node.devices.setdefault(labels["pool_id"], Device())
        device.name = labels.get("pool_name", "")
        setattr(device, attribute, labels["type"] if attribute == "kind" else value)

    return put


def _down(node: Node, labels: Labels, _value: float) -> None:
    node.reason = labels.get("reason", "")


def _info(node: Node, labels: Labels, _value: float) -> None:
    node.addresses = tuple(text for name in ("address", "ip_address") if (text := labels.get(name)))


_READERS: Final[dict[str, _Reader]] = {
    "clio_node_up": _node("up", bool),
    "clio_node_down_info": _down,
    "clio_node_info": _info,
    "clio_node_leader": _node("leader", bool),
    "clio_node_start_time_seconds": _node("started"),
    "clio_node_cpu_utilization_ratio": _node("cpu"),
    "clio_node_memory_total_bytes": _node("memory_total"),
    "clio_node_memory_available_bytes": _node("memory_free"),
    "clio_node_gpus": _node("gpus"),
    "clio_node_gpu_utilization_ratio": _node("gpu"),
    "clio_node_hbm_total_bytes": _node("hbm_total"),
    "clio_node_hbm_used_bytes": _node("hbm_used"),
    "clio_worker_active": _worker("active", bool),
    "clio_worker_queued_tasks": _worker("queued"),
    "clio_worker_blocked_tasks": _worker("blocked"),
    _PROCESSED: _worker("processed"),
    "clio_bdev_info": _device("kind"),
    "clio_bdev_capacity_bytes": _device("capacity"),
    "clio_bdev_free_bytes": _device("free"),
    _READ: _device("read"),
    _WRITTEN: _device("written"),
}
"""What is read; a test holds these names against the exporter's families."""

METRICS: Final = tuple(_READERS)
"""Names of all that is read."""
