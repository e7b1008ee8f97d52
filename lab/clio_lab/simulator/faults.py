"""Faults of simulated nodes: what can go wrong, as text and as data."""

from __future__ import annotations

import random
from dataclasses import dataclass

KINDS = {
    "slow": "answers after <seconds>",
    "silent": "reads requests and never answers",
    "garbage": "answers with random bytes in the body",
    "truncated": "answers with the first <bytes> of the frame",
    "huge": "answers with frames of <megabytes>",
    "duplicated": "sends every answer twice",
    "wrong-id": "answers with another net_key",
    "restarting": "drops connections, stays away for <seconds> (1), comes back as another process",
    "refused": "the port is closed",
    "hang": "accepts TCP connections and never says anything",
    "non-zmq": "an HTTP server on the port",
    "retired-pool": "the pool <major.minor> is gone",
    "workers": "the number of workers is <count>",
    "error-rc": "answers with return code <rc> and no results",
    "clock": "its wall clock is <seconds> ahead",
    "frozen": "it takes no more system samples",
    "memory": "<percent> of its memory is in use",
    "leader": "it says that it leads, 1, or does not, 0: <flag>",
    "stuck": "its workers have tasks queued and complete none",
    "backlog": "<tasks> a second more wait in the queue of each worker",
    "busy": "its workers are never idle, with 20 tasks queued for each",
    "gpu-memory": "it has a GPU, with <percent> of its memory in use",
    "full": "its devices in memory are full, its files to <percent>",
    "filling": "its files are half full, and full <seconds> later",
    "latency": "its files take <milliseconds> for a read or write of 1 MiB, by the runtime's model",
    "failing": "its files are predicted to fail in <days>",
    "faulty": "<count> members of each of its arrays are faulty",
    "rebuild": "a member of each of its arrays is being rebuilt: <percent>",
}
"""Name of each fault and what it does; ``<...>`` is the argument."""

PORT_FAULTS = frozenset({"refused", "hang", "non-zmq"})
"""Faults that take the ZeroMQ socket off the port."""

CONDITIONS = frozenset(
    {
        "clock", "frozen", "memory", "leader", "stuck", "backlog", "busy",
        "gpu-memory", "full", "filling", "latency", "failing", "faulty", "rebuild",
    }
)  # fmt: skip
"""Faults that are not in how a node answers, but in what it says of itself."""

_DEFAULTS = {"restarting": "1"}
_NET_KEY = slice(64, 72)


@dataclass(frozen=True)
class Fault:
    """One fault. ``number`` is its argument as a number where it has one, ``text`` as given."""

    kind: str
    text: str = ""

    @property
    def number(self) -> float:
        """The argument: seconds, bytes, a count or a return code."""
        return float(self.text)


def parse_fault(text: str) -> Fault:
    """Read ``kind`` or ``kind:argument``; :class:`ValueError` names what is wrong."""
    kind, _, argument = text.partition(":")
    if kind not in KINDS:
        raise ValueError(f"unknown fault {kind!r}; known: {', '.join(KINDS)}")
    argument = argument or _DEFAULTS.get(kind, "")
    wants = "<" in KINDS[kind]
    if wants and not argument:
        raise ValueError(f"fault {kind} needs an argument, {kind}:<...>: {KINDS[kind]}")
    if argument and not wants:
        raise ValueError(f"fault {kind} takes no argument")
    if wants and kind != "retired-pool":
        try:
            number = float(argument)
        except ValueError:
            raise ValueError(f"fault {kind}: {argument!r} is not a number") from None
        if number < 0 or (kind not in ("slow", "restarting") and number != int(number)):
            raise ValueError(f"fault {kind}: {argument!r} is out of range")
    return Fault(kind, argument)


def parse_node_fault(text: str, nodes: int) -> tuple[range, Fault]:
    """Read ``<node>=<fault>`` or ``<first>-<last>=<fault>`` of the command line."""
    where, sign, what = text.partition("=")
    first, dash, last = where.partition("-")
    if not sign or not first.isdigit() or (dash and not last.isdigit()):
        raise ValueError(f"--fault {text!r}: expected <node>=<fault> or <first>-<last>=<fault>")
    chosen = range(int(first), int(last or first) + 1)
    if not chosen or chosen[-1] >= nodes:
        raise ValueError(f"--fault {text!r}: there are nodes 0 to {nodes - 1}")
    return chosen, parse_fault(what)


def spoil(frame: bytes, body_at: int, faults: dict[str, Fault], noise: random.Random) -> bytes:
    """An answer frame as the node's faults leave it (only those that change bytes)."""
    if "garbage" in faults:
        frame = frame[:body_at] + noise.randbytes(len(frame) - body_at)
    if "wrong-id" in faults:
        frame = frame[:64] + bytes(byte ^ 0xA5 for byte in frame[_NET_KEY]) + frame[72:]
    if "huge" in faults:
        frame = frame.ljust(int(faults["huge"].number) << 20, b"\0")
    if "truncated" in faults:
        frame = frame[: int(faults["truncated"].number)]
    return frame
