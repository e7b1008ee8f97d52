"""What a simulated node answers: the recorded documents with the node's own moving values in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgpack

from clio_lab.simulator import model
from clio_lab.simulator.recorded import Recording
from clio_lab.simulator.splice import Path, Scalar, Template, array_header, elements, find, splice, template

RC_OK = 0
RC_MALFORMED = 2
RC_NO_POOL = 3

_MIN_EVENT = re.compile(rb"\s*(\d+)")
_DEFAULT_POOL = (1, 0)

Results = list[tuple[int, bytes]]
Reply = tuple[int, Results]


class Unanswered(Exception):  # noqa: N818 - an outcome, not an error
    """A real runtime never answers this request."""


@dataclass
class NodeState:
    """What tells one simulated node from another. ``started_ns`` is CLOCK_MONOTONIC at its (re)start."""

    index: int
    hostname: str
    address: str
    pid: int
    started_ns: int
    workers: int
    answering: bool = True
    retired: set[str] = field(default_factory=set)
    sample: Template | None = None
    conditions: dict[str, tuple[float, int]] = field(default_factory=dict)
    """By kind (faults.CONDITIONS), its argument and CLOCK_MONOTONIC when it began."""

    def set_condition(self, kind: str, argument: float) -> None:
        """Let the node say of itself what this fault means."""
        self.conditions[kind] = argument, model.clock_ns()
        self.sample = None

    def clear_conditions(self) -> None:
        """Let the node be well again."""
        self.conditions.clear()
        self.sample = None

    def until(self, kind: str, now_ns: int) -> int:
        """Now, or when this condition began."""
        return self.conditions[kind][1] if kind in self.conditions else now_ns

    def argument(self, kind: str, default: float) -> float:
        """What the condition was given, `default` while it is not there."""
        return self.conditions[kind][0] if kind in self.conditions else default


@dataclass(frozen=True)
class _Pool:
    pool_id: str
    entry: Template
    name: str
    bdev: int | None
    stats: Template | None
    capacity: int = 0
    counted: bool = True
    array: bool = False


def _utf8(document: bytes, key: str) -> str:
    start, end = find(document, (key,))
    tag = document[start]
    head = 1 if tag <= 0xBF else 2 if tag == 0xD9 else 3
    return document[start + head : end].decode()


def _uint(document: bytes, key: str) -> int:
    start, end = find(document, (key,))
    return document[start] if end - start == 1 else int.from_bytes(document[start + 1 : end], "big")


class Answers:
    """The queries of one simulated cluster, answered from one recording."""

    def __init__(
        self,
        recording: Recording,
        nodes: Sequence[NodeState],
        bdevs: int,
        rate: float,
        ring: int,
        wall_offset_ns: int,
        arrays: int = 0,
    ) -> None:
        self._nodes = nodes
        self._rate = rate
        self._ring = ring
        self._wall_offset_ns = wall_offset_ns
        results = recording.results
        self._worker_elements = [
            results["worker_stats"][start:end] for start, end in elements(results["worker_stats"])
        ]
        self._workers: list[Template] = []
        start, end = next(elements(results["system_stats"]))
        self._sample_document = results["system_stats"][start:end]
        self._memory_total = _uint(self._sample_document, "ram_total_bytes")
        self._host_info = template(results["get_host_info"], [("hostname",), ("ip_address",), ("node_id",)])
        pools = [*_pools(recording, bdevs), *_arrays(recording, arrays)]
        self._pools = {pool.pool_id: pool for pool in pools}
        self._admin: dict[bytes, Callable[[NodeState, int], bytes]] = {
            b"worker_stats": self._worker_stats,
            b"get_host_info": self._get_host_info,
            b"container_stats": self._container_stats,
        }
        self._parsed: dict[bytes, tuple[str, bytes, tuple[int, ...], bytes] | None] = {}

    @property
    def pool_ids(self) -> list[str]:
        """Ids of all pools of a node, in the order of container_stats."""
        return list(self._pools)

    def monitor(self, node: NodeState, pool: tuple[int, int], query: bytes, now_ns: int) -> Reply:
        """Answer ``query`` sent to ``pool`` of ``node`` with local routing.

        Raises :class:`Unanswered` where a real runtime loses the request.
        """
        if pool == _DEFAULT_POOL:
            return self._admin_query(node, query, now_ns)
        pool_id = f"{pool[0]}.{pool[1]}"
        if pool_id not in self._pools or pool_id in node.retired:
            raise Unanswered
        return RC_OK, self._pool_query(node, pool_id, query, now_ns)

    def routed(self, node: NodeState, mode: int, targets: Sequence[int]) -> list[NodeState]:
        """The nodes that a header routing mode reaches from ``node``; ``targets`` as in a request."""
        hashed, container, offset, count, physical = targets[:5]
        words = {
            1: (b"direct_id", (container,)),
            2: (b"direct_hash", (hashed,)),
            3: (b"range", (offset, count)),
        }
        words |= {4: (b"broadcast", ()), 5: (b"physical", (physical,))}
        word, numbers = words.get(mode, (b"local", ()))
        return self._route(node, word, numbers)

    def _route(self, node: NodeState, word: bytes, numbers: tuple[int, ...]) -> list[NodeState]:
        nodes, size = self._nodes, len(self._nodes)
        if word in (b"local", b"dynamic"):
            return [node]
        if word == b"broadcast":
            chosen = list(nodes)
        elif word == b"direct_id":
            chosen = [nodes[numbers[0] if numbers[0] < size else 0]]
        elif word == b"direct_hash":
            chosen = [nodes[numbers[0] % size]]
        elif word == b"physical":
            if numbers[0] >= size:
                raise Unanswered
            chosen = [nodes[numbers[0]]]
        else:
            offset, count = numbers
            if count == 0:
                raise Unanswered
            indexes = list(range(offset, min(offset + count, size)))
            if offset + count > size and 0 not in indexes:
                indexes.append(0)
            chosen = [nodes[i] for i in indexes]
        if not all(one.answering for one in chosen):
            raise Unanswered
        return chosen

    def _admin_query(self, node: NodeState, query: bytes, now_ns: int) -> Reply:
        simple = self._admin.get(query)
        if simple is not None:
            return RC_OK, [(node.index, simple(node, now_ns))]
        if query.startswith(b"system_stats"):
            return RC_OK, [(node.index, self._system_stats(node, query, now_ns))]
        if query.startswith(b"pool_stats://"):
            return self._pool_stats(node, query, now_ns)
        if query == b"bdev_stats":
            raise Unanswered
        return RC_OK, []

    def _worker_stats(self, node: NodeState, now_ns: int) -> bytes:
        age, index, rate = now_ns - node.started_ns, node.index, self._rate
        while len(self._workers) < node.workers:
            self._workers.append(self._worker_template(len(self._workers)))
        parts = [array_header(node.workers)]
        worked = node.until("stuck", now_ns) - node.started_ns
        for worker in range(node.workers):
            queued = self._queued(node, worker, now_ns)
            parts.append(
                self._workers[worker].fill(
                    (
                        0 if "busy" in node.conditions else model.idle_iterations(index, worker, age, rate),
                        queued,
                        model.tasks_processed(index, worker, worked, rate),
                        queued * model.LOAD_PER_TASK,
                    )
                )
            )
        return b"".join(parts)

    def _queued(self, node: NodeState, worker: int, now_ns: int) -> int:
        queued = model.queued_tasks(node.index, worker, now_ns - node.started_ns)
        if "stuck" in node.conditions:
            queued += 1
        if "busy" in node.conditions:
            queued = 20
        seconds = (now_ns - node.until("backlog", now_ns)) // model.SECOND
        return queued + int(node.argument("backlog", 0.0) * seconds)

    def _worker_template(self, worker: int) -> Template:
        document = splice(
            self._worker_elements[worker % len(self._worker_elements)], {("worker_id",): worker}
        )
        moving = ("idle_iterations", "num_queued_tasks", "num_tasks_processed", "load")
        return template(document, [(key,) for key in moving])

    def _get_host_info(self, node: NodeState, now_ns: int) -> bytes:
        del now_ns
        return self._host_info.fill((node.hostname, node.address, node.index))

    def _system_stats(self, node: NodeState, query: bytes, now_ns: int) -> bytes:
        given = _MIN_EVENT.match(query[len(b"system_stats:") :])
        minimum = int(given.group(1)) if given else 0
        if node.sample is None:
            node.sample = self._sample_template(node)
        fill, index, total = node.sample.fill, node.index, self._memory_total
        newest_ns = node.until("frozen", now_ns)
        wall_offset_ns = self._wall_offset_ns + int(node.argument("clock", 0.0) * model.SECOND)
        events = model.event_range(minimum, newest_ns - node.started_ns, self._ring)
        parts = [array_header(len(events))]
        for event in events:
            taken_ns = node.started_ns + event * model.SECOND
            available = model.memory_available(index, event, total)
            if "memory" in node.conditions:
                available = int(total * (1 - node.argument("memory", 0.0) / 100))
            used = 100.0 * (total - available) / total
            cpu = model.cpu_percent(index, event)
            parts.append(fill((event, taken_ns, taken_ns + wall_offset_ns, available, used, cpu)))
        return b"".join(parts)

    def _sample_template(self, node: NodeState) -> Template:
        document = splice(
            self._sample_document,
            {
                ("hostname",): node.hostname,
                ("ip_address",): node.address,
                ("node_id",): node.index,
                ("is_leader",): bool(node.argument("leader", node.index == 0)),
                **_gpu(node),
            },
        )
        moving = (
            "event_id",
            "timestamp_ns",
            "wall_time_ns",
            "ram_available_bytes",
            "ram_usage_pct",
            "cpu_usage_pct",
        )
        return template(document, [(key,) for key in moving])

    def _container_stats(self, node: NodeState, now_ns: int) -> bytes:
        del now_ns
        entries = [
            pool.entry.fill((_node_name(pool.name, node.index), node.index))
            for pool in self._pools.values()
            if pool.pool_id not in node.retired
        ]
        return array_header(len(entries)) + b"".join(entries)

    def _pool_stats(self, node: NodeState, query: bytes, now_ns: int) -> Reply:
        if query not in self._parsed:
            if len(self._parsed) > 10_000:
                self._parsed.clear()
            self._parsed[query] = _parse_pool_stats(query)
        parsed = self._parsed[query]
        if parsed is None:
            return RC_MALFORMED, []
        pool_id, word, numbers, selector = parsed
        if pool_id not in self._pools or pool_id in node.retired:
            return RC_NO_POOL, []
        if word == b"local":
            return RC_OK, self._pool_query(node, pool_id, selector, now_ns)
        results: Results = []
        for one in self._route(node, word, numbers):
            results += self._pool_query(one, pool_id, selector, now_ns)
        return RC_OK, results

    def _pool_query(self, node: NodeState, pool_id: str, selector: bytes, now_ns: int) -> Results:
        if pool_id == "1.0":
            return self._admin_query(node, selector, now_ns)[1]
        pool = self._pools[pool_id]
        if selector == b"stats" and pool.array and pool_id not in node.retired:
            return [(node.index, _array(node, pool.name))]
        if selector != b"stats" or pool.stats is None or pool_id in node.retired:
            return []
        age = now_ns - node.started_ns
        if pool.bdev is None:
            return [(node.index, pool.stats.fill((model.cte_blobs(node.index, age, self._rate),)))]
        reads = model.bdev_reads(node.index, pool.bdev, age, self._rate)
        writes = model.bdev_writes(node.index, pool.bdev, age, self._rate)
        counts = (reads, writes, reads * model.BLOCK, writes * model.BLOCK) if pool.counted else (0, 0, 0, 0)
        values = (_node_name(pool.name, node.index), _remaining(node, pool, writes, now_ns), *counts)
        document = pool.stats.fill(values)
        if pool.counted and (told := _told(node)):
            document = splice(document, told)
        return [(node.index, document)]


def _told(node: NodeState) -> dict[Path, Scalar]:
    """What a file that is ill says of itself, beside its size."""
    told: dict[Path, Scalar] = {}
    if "failing" in node.conditions:
        told["predicted_ttl_days",] = int(node.argument("failing", 0.0))
    if "latency" in node.conditions:
        microseconds = 1000 * node.argument("latency", 0.0)
        told |= {("read_latency_us",): microseconds, ("write_latency_us",): microseconds}
    return told


def _remaining(node: NodeState, pool: _Pool, writes: int, now_ns: int) -> int:
    """Free bytes of a device."""
    if "full" in node.conditions:
        return int(pool.capacity * (1 - node.argument("full", 0.0) / 100)) if pool.counted else 0
    if "filling" in node.conditions and pool.counted:
        seconds, since = node.conditions["filling"]
        return model.bdev_filling(pool.capacity, now_ns - since, seconds)
    return model.bdev_remaining(pool.capacity, writes)


def _gpu(node: NodeState) -> dict[tuple[int | str, ...], float]:
    """What a sample says of the GPU of a node that has one."""
    if "gpu-memory" not in node.conditions:
        return {}
    total, percent = 8 << 30, node.argument("gpu-memory", 0.0)
    return {
        ("gpu_count",): 1,
        ("hbm_total_bytes",): total,
        ("hbm_used_bytes",): int(total * percent / 100),
        ("hbm_usage_pct",): percent,
    }


def _array(node: NodeState, name: str) -> bytes:
    """Statistics of an array. No wheel has its module: the keys are those that its source writes."""
    rebuilt = "rebuild" in node.conditions
    done = int(node.argument("rebuild", 0.0))
    to_do = model.REBUILD - done if rebuilt else 0
    document = {
        "pool_name": name,
        "total_capacity": model.ARRAY_BYTES,
        "remaining_capacity": model.ARRAY_BYTES,
        "max_failures": model.ARRAY_PARITY,
        "parity_level": model.ARRAY_PARITY,
        "data_count": model.ARRAY_DATA,
        "recovery_active": rebuilt,
        "recovery_ops_total": model.REBUILD if rebuilt else 0,
        "recovery_ops_completed": done,
        "recovery_ops_in_flight": min(1, to_do),
        "recovery_ops_remaining": max(0, to_do - 1),
        "members": model.array_members(int(node.argument("faulty", 0.0)), rebuilt),
    }
    packed: bytes = msgpack.packb(document)
    return packed


def _node_name(recorded: str, index: int) -> str:
    """A recorded pool name as node ``index`` would have it (target names end in the node)."""
    return recorded.replace("_node0", f"_node{index}")


def _parse_pool_stats(query: bytes) -> tuple[str, bytes, tuple[int, ...], bytes] | None:
    """``(pool id, routing word, its numbers, selector)`` of a pool_stats:// query, None when malformed."""
    parts = query[len(b"pool_stats://") :].split(b":")
    if len(parts) < 2 or not re.fullmatch(rb"\d+\.\d+", parts[0]):
        return None
    word = parts[1].lower()
    numbers_of = {
        b"local": 0,
        b"dynamic": 0,
        b"broadcast": 0,
        b"direct_id": 1,
        b"direct_hash": 1,
        b"physical": 1,
    }
    count = 2 if word == b"range" else numbers_of.get(word)
    if count is None or len(parts) < 2 + count:
        return None
    numbers = parts[2 : 2 + count]
    if not all(number.isdigit() for number in numbers):
        return None
    return parts[0].decode(), word, tuple(map(int, numbers)), b":".join(parts[2 + count :])


def _pools(recording: Recording, bdevs: int) -> list[_Pool]:
    """The pools of a node: those recorded, with exactly ``bdevs`` block devices among them."""
    document = recording.results["container_stats"]
    entries = [document[start:end] for start, end in elements(document)]
    is_bdev = [_utf8(entry, "chimod_name").endswith("_bdev") for entry in entries]
    spare = [entry for entry, bdev in zip(entries, is_bdev, strict=True) if bdev]
    pools: list[_Pool] = []
    count = 0
    for entry, bdev in zip(entries, is_bdev, strict=True):
        if not bdev:
            pools.append(_other_pool(recording, entry))
        elif count < bdevs:
            pools.append(_bdev_pool(recording, entry, _utf8(entry, "pool_id"), count))
            count += 1
    taken = {_utf8(entry, "pool_id") for entry in entries}
    number = 513
    while count < bdevs:
        number += 1
        if f"{number}.1" in taken:
            continue
        entry = splice(spare[count % len(spare)], {("pool_name",): f"ram::simulated_{number}_node0"})
        pools.append(_bdev_pool(recording, entry, f"{number}.1", count))
        count += 1
    return pools


def _arrays(recording: Recording, count: int) -> list[_Pool]:
    """Arrays of devices; their entries are those of a device by another name."""
    document = recording.results["container_stats"]
    entries = (document[start:end] for start, end in elements(document))
    device = next(entry for entry in entries if _utf8(entry, "chimod_name").endswith("_bdev"))
    pools = []
    for number in range(570, 570 + count):
        name = f"safe::simulated_{number}"
        entry = splice(device, {("chimod_name",): "clio_safe_bdev", ("pool_name",): name})
        pool_id = f"{number}.0"
        pools.append(_Pool(pool_id, _entry_template(entry, pool_id), name, None, None, array=True))
    return pools


def _entry_template(entry: bytes, pool_id: str) -> Template:
    return template(splice(entry, {("pool_id",): pool_id}), [("pool_name",), ("container_id",)])


def _other_pool(recording: Recording, entry: bytes) -> _Pool:
    pool_id = _utf8(entry, "pool_id")
    core = recording.results.get("cte_core") if _utf8(entry, "chimod_name").endswith("_cte_core") else None
    stats = template(core, [("num_blobs",)]) if core else None
    return _Pool(pool_id, _entry_template(entry, pool_id), _utf8(entry, "pool_name"), None, stats)


def _bdev_pool(recording: Recording, entry: bytes, pool_id: str, bdev: int) -> _Pool:
    recorded = recording.bdevs
    document = recorded.get(pool_id) or list(recorded.values())[bdev % len(recorded)]
    moving = (
        "pool_name",
        "remaining_capacity",
        "total_reads",
        "total_writes",
        "total_bytes_read",
        "total_bytes_written",
    )
    return _Pool(
        pool_id=pool_id,
        entry=_entry_template(entry, pool_id),
        name=_utf8(entry, "pool_name"),
        bdev=bdev,
        stats=template(document, [(key,) for key in moving]),
        capacity=_uint(document, "total_capacity"),
        # Runtimes do not count what devices in memory read and write.
        counted=_uint(document, "bdev_type") == model.FILE,
    )
