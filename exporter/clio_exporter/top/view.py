"""Nodes as lines of a terminal. Pure functions; a cell is a text and a mood, which colours may show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from clio_client.search import Search
from clio_exporter.top.frame import Device, Frame, Node, filled

Cell = tuple[str, str]
"""Text, and mood: `good`, `warn`, `bad`, `dim` or nothing."""

UNKNOWN: Final = "-"
_WIDE: Final = 112
_BAR, _WIDE_BAR = 4, 10
_HIGH, _FULL = 0.8, 0.95


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table.

    Attributes:
        width: characters; of the name's column, at least.
        wide: shown in wide terminals only.
    """

    title: str
    width: int
    cell: Callable[[Node, int], Cell]
    left: bool = False
    wide: bool = False


def number(value: float | None) -> str:
    """At most five characters: 0, 17, 5.2k, 120M."""
    return _scaled(value, 1000, ("", "k", "M", "G", "T", "P"))


def size(value: float | None) -> str:
    """Bytes in powers of 1024: 0, 512, 1.5K, 30M."""
    return _scaled(value, 1024, ("", "K", "M", "G", "T", "P"))


def _scaled(value: float | None, step: int, units: Sequence[str]) -> str:
    if value is None:
        return UNKNOWN
    for unit in units:
        if abs(value) < step - 0.5:
            return f"{value:.0f}{unit}" if not unit or value >= 99.5 else f"{value:.1f}{unit}"
        value /= step
    return f"{value:.0f}E"


def percent(ratio: float | None) -> str:
    """0 to 100 %."""
    return UNKNOWN if ratio is None else f"{ratio * 100:.0f}%"


def bar(ratio: float | None, width: int) -> str:
    """A bar of this many characters, in ASCII: any terminal shows it."""
    if ratio is None:
        return " " * width
    full = round(min(1.0, max(0.0, ratio)) * width)
    return "#" * full + "." * (width - full)


def _mood(ratio: float | None) -> str:
    if ratio is None:
        return "dim"
    return "bad" if ratio >= _FULL else "warn" if ratio >= _HIGH else ""


def _name(node: Node, width: int) -> str:
    """The number in full, of the cluster's name what there is room for."""
    if len(node.name) <= width:
        return node.name
    room = width - len(node.node_id) - 1
    return f"{node.cluster[:room]}/{node.node_id}" if room > 0 else node.node_id


def _state(node: Node, width: int) -> Cell:
    return node.state[:width], "good" if node.up else "bad"


def _ratio(read: Callable[[Node], float | None]) -> Callable[[Node, int], Cell]:
    def cell(node: Node, width: int) -> Cell:
        ratio = read(node)
        return f"{bar(ratio, width - 4)}{percent(ratio):>4}", _mood(ratio)

    return cell


def _plain(read: Callable[[Node], float | None], write: Callable[[float | None], str]) -> Callable[..., Cell]:
    return lambda node, _width: (write(read(node)), "")


_RATIO, _WIDE_RATIO = _BAR + 4, _WIDE_BAR + 4

COLUMNS: Final = (
    Column("NODE", 5, lambda node, width: (_name(node, width), ""), left=True),
    Column("HOST", 13, lambda node, width: (node.hostname[-width:], ""), left=True),
    Column("STATE", 8, _state, left=True),
    Column("CPU", _RATIO, _ratio(lambda node: node.cpu)),
    Column("MEMORY", _RATIO, _ratio(lambda node: node.memory)),
    Column("GPU", 4, lambda node, _width: (percent(node.gpu), _mood(node.gpu))),
    Column("WRK", 3, lambda node, _width: (str(len(node.workers)) if node.workers else UNKNOWN, "")),
    Column("QUEUE", 5, _plain(lambda node: node.queued, number)),
    Column("BLOCK", 5, _plain(lambda node: node.blocked, number), wide=True),
    Column("TASK/S", 6, _plain(lambda node: node.tasks, number)),
    Column("FILL", 4, lambda node, _width: (percent(node.fill), _mood(node.fill))),
    Column("IO/S", 5, _plain(lambda node: node.traffic, size)),
    Column("READ/S", 6, _plain(lambda node: node.read, size), wide=True),
    Column("WRITE/S", 7, _plain(lambda node: node.written, size), wide=True),
)

SORTS: Final[dict[str, Callable[[Node], float | None]]] = {
    "node": lambda _node: None,
    "state": lambda node: 0.0 if node.up else 1.0,
    "cpu": lambda node: node.cpu,
    "memory": lambda node: node.memory,
    "gpu": lambda node: node.gpu,
    "queue": lambda node: node.queued,
    "tasks": lambda node: node.tasks,
    "fill": lambda node: node.fill,
    "io": lambda node: node.traffic,
}
"""Orders: the highest first, what is not told last, else by node."""


def chosen(frame: Frame, search: Search, sort: str) -> list[Node]:
    """The nodes that a search means, in an order of `SORTS`."""
    read = SORTS[sort]

    def rank(node: Node) -> tuple[bool, float, str, int, str]:
        value = read(node)
        place = node.number
        return value is None, -(value or 0.0), node.cluster, place, node.hostname

    return sorted((node for node in frame.nodes.values() if node.is_meant(search)), key=rank)


def columns(width: int) -> list[tuple[Column, int]]:
    """The columns that a terminal of this width shows, and how wide each is; the host takes what is left."""
    shown = [column for column in COLUMNS if width >= _WIDE or not column.wide]
    widths = [
        _WIDE_RATIO if width >= _WIDE and column.width == _RATIO and column.title in ("CPU", "MEMORY")
        else column.width
        for column in shown
    ]  # fmt: skip
    spare = width - sum(widths) - (len(shown) - 1)
    return [
        (column, size + max(0, spare) if column.title == "HOST" else size)
        for column, size in zip(shown, widths, strict=True)
    ]


def heading(width: int, sort: str = "node") -> str:
    """The line above the nodes; the order's column has a `v`."""
    titles = {"tasks": "TASK/S", "io": "IO/S"}.get(sort, sort.upper())
    cells = [
        _fit(c.title + "v" if c.title == titles and len(c.title) < w else c.title, w, c.left)
        for c, w in columns(width)
    ]
    return " ".join(cells)[:width]


def row(node: Node, width: int) -> list[Cell]:
    """A node's cells, as wide as the terminal in all."""
    cells: list[Cell] = []
    for column, space in columns(width):
        text, mood = column.cell(node, space)
        cells.append((_fit(text, space, column.left), mood))
        cells.append((" ", ""))
    return cells[:-1]


def summary(frame: Frame, width: int) -> list[Cell]:
    """Two lines about the whole cluster, and before them which moment it is, where that is not now."""
    nodes = list(frame.nodes.values())
    up = sum(node.up for node in nodes)
    reasons: dict[str, int] = {}
    for node in nodes:
        if not node.up:
            reasons[node.state] = reasons.get(node.state, 0) + 1
    down = "".join(f", {count} {reason}" for reason, count in sorted(reasons.items()))
    told = [node.cpu for node in nodes if node.cpu is not None]
    cpu = percent(sum(told) / len(told) if told else None)
    queued, tasks = (_total(getattr(node, name) for node in nodes) for name in ("queued", "tasks"))
    first = f"{len(nodes)} nodes: {up} up{down}  cpu {cpu}  queue {number(queued)}  tasks/s {number(tasks)}"
    tiers = "  ".join(_tier(kind, devices) for kind, devices in frame.tiers().items())
    titled = [(frame.title[:width], "")] if frame.title else []
    return [
        *titled,
        (first[:width], "" if up == len(nodes) else "bad"),
        ((tiers or "no devices")[:width], ""),
    ]


def detail(node: Node) -> list[str]:
    """Workers and devices of one node."""
    lines = [
        f"node {node.name}  {node.hostname}  {node.state}",
        f"cpu {percent(node.cpu)}  memory {percent(node.memory)} of {size(node.memory_total)}  "
        f"gpus {number(node.gpus)} {percent(node.gpu)}  hbm {size(node.hbm_used)} of {size(node.hbm_total)}",
        "",
        "WORKER  ACTIVE  QUEUE  BLOCK  TASK/S  PROCESSED",
    ]
    for name, worker in sorted(node.workers.items(), key=lambda item: (len(item[0]), item[0])):
        active = UNKNOWN if worker.active is None else "yes" if worker.active else "no"
        lines.append(
            f"{name:>6}  {active:>6}  {number(worker.queued):>5}  {number(worker.blocked):>5}  "
            f"{number(worker.rate):>6}  {number(worker.processed):>9}"
        )
    lines += ["", "DEVICE                          TYPE  CAPACITY  FILL  READ/S  WRITE/S"]
    for device in sorted(node.devices.values(), key=lambda device: device.name):
        lines.append(
            f"{device.name[-30:]:<30}  {device.kind:>4}  {size(device.capacity):>8}  "
            f"{percent(filled([device])):>4}  {size(device.read_rate):>6}  {size(device.write_rate):>7}"
        )
    return lines


def printed(frame: Frame, search: Search, sort: str, width: int) -> str:
    """A whole frame as text."""
    lines = [text for text, _ in summary(frame, width)]
    lines += ["", heading(width, sort)]
    lines += ["".join(text for text, _ in row(node, width)) for node in chosen(frame, search, sort)]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _tier(kind: str, devices: Sequence[Device]) -> str:
    read, written = _total(d.read_rate for d in devices), _total(d.write_rate for d in devices)
    capacity = size(_total(d.capacity for d in devices))
    return f"{kind} {percent(filled(devices))} of {capacity} r {size(read)}/s w {size(written)}/s"


def _total(values: Iterable[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return sum(told) if told else None


def _fit(text: str, width: int, left: bool) -> str:
    return text[:width].ljust(width) if left else text[:width].rjust(width)
