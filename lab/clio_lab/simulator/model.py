"""The moving numbers of a simulated node, as pure functions of node, thing, time and rate.

Time is the node's age in nanoseconds: `clock_ns` minus the ClientConnect generation. A test that reads a
value knows that it lies between the value for the age just before and the one just after it asked.
"""

from __future__ import annotations

import time

SECOND = 1_000_000_000
BLOCK = 65536
"""Bytes per simulated read or write, the size that the recorded traffic used."""

RING = 1024
"""Entries that the runtime's system_stats history keeps."""

LOAD_PER_TASK = 0.25
"""What one queued task adds to a worker's load."""

HEAD_START_NS = 1_000_000 * SECOND
"""How much longer the simulated hosts have been up than this one, whose own uptime may be minutes."""


def clock_ns() -> int:
    """CLOCK_MONOTONIC of the simulated hosts, nanoseconds."""
    return time.monotonic_ns() + HEAD_START_NS


def _per_second(per_second: float, age_ns: int, rate: float) -> int:
    return int(age_ns * rate * per_second) // SECOND


def tasks_processed(node: int, worker: int, age_ns: int, rate: float) -> int:
    """Tasks that a worker has processed: ``100 + 10 * worker + node % 50`` a second at rate 1."""
    return _per_second(100 + 10 * worker + node % 50, age_ns, rate)


def idle_iterations(node: int, worker: int, age_ns: int, rate: float) -> int:
    """Idle iterations of a worker: ``1000 + 100 * worker + node % 7`` a second at rate 1."""
    return _per_second(1000 + 100 * worker + node % 7, age_ns, rate)


def queued_tasks(node: int, worker: int, age_ns: int) -> int:
    """Tasks in a worker's queue: 0 to 10, another number each second."""
    return (age_ns // SECOND + 7 * node + 3 * worker) % 11


ARRAY_DATA = 4
ARRAY_PARITY = 2
ARRAY_BYTES = 1 << 30
REBUILD = 100
"""Operations that the rebuild of an array's member takes."""

FILE = 0
"""The `bdev_type` of a file; others are memory."""


def bdev_reads(node: int, bdev: int, age_ns: int, rate: float) -> int:
    """Reads of a block device: ``5 + bdev + node % 5`` a second at rate 1."""
    return _per_second(5 + bdev + node % 5, age_ns, rate)


def bdev_writes(node: int, bdev: int, age_ns: int, rate: float) -> int:
    """Writes of a block device: ``3 + bdev + node % 3`` a second at rate 1."""
    return _per_second(3 + bdev + node % 3, age_ns, rate)


def bdev_remaining(total: int, writes: int) -> int:
    """Free bytes of a device of ``total`` bytes after ``writes`` blocks; it is emptied when 90 % full."""
    return total - (writes * BLOCK) % (total * 9 // 10)


def bdev_filling(total: int, age_ns: int, seconds: float) -> int:
    """Free bytes of a device that was half full and is full in ``seconds``, after a part of them."""
    return int(total / 2 * max(0.0, 1 - age_ns / (seconds * SECOND)))


def array_members(faulty: int, rebuilt: bool) -> list[dict[str, str | int]]:
    """Members of an array of four data and two parity devices, the first of them faulty or being rebuilt."""
    roles = [("data", index) for index in range(ARRAY_DATA)]
    roles += [("parity", index) for index in range(ARRAY_PARITY)]
    states = ["recovering"] * rebuilt + ["faulty"] * faulty
    states += ["active"] * (len(roles) - len(states))
    return [
        {
            "role": role,
            "index": index,
            "pool_name": f"{role}{index}",
            "pool_id": (600 + i) << 32,
            "state": state,
        }
        for i, ((role, index), state) in enumerate(zip(roles, states, strict=True))
    ]


def cte_blobs(node: int, age_ns: int, rate: float) -> int:
    """Blobs in the context transfer engine: ``1 + node % 3`` more each second at rate 1."""
    return _per_second(1 + node % 3, age_ns, rate)


def newest_event(age_ns: int) -> int:
    """Id of the newest system_stats sample: one a second, the first (0) at the start."""
    return age_ns // SECOND


def event_range(minimum: int, age_ns: int, ring: int = RING) -> range:
    """Ids that ``system_stats:<minimum>`` returns: at least ``minimum``, no older than the ring."""
    newest = newest_event(age_ns)
    return range(max(minimum, newest - ring + 1, 0), newest + 1)


def cpu_percent(node: int, event: int) -> float:
    """CPU use in percent of a sample, 0.5 to 95.5."""
    return (event * 7 + node * 13) % 96 + 0.5


def memory_available(node: int, event: int, total: int) -> int:
    """Available memory in bytes of a sample: between 40 and 90 % of ``total``."""
    return total // 100 * (40 + (event * 3 + node * 5) % 51)
