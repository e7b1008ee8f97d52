"""What one scrape learned of one node, for the collectors to turn into samples."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from exporter.config.errors import ConfigError
from exporter.config.runtime_conf import RuntimeConfig
from exporter.membership import Member
from exporter.runtime.codec import Generation
from exporter.runtime.errors import DeadlineError, RuntimeClientError
from exporter.runtime.records import Container, PoolStats, SystemSample, WorkerStats
from exporter.runtime.transport import NodeSession

NOT_YET: Final = DeadlineError("nothing was heard of the node before the scrape's deadline")
"""Why a node counts as down of which nothing has arrived when the scrape had to be answered."""


class Topic(enum.Enum):
    """What can be asked of a node; collectors name the topics they need."""

    SYSTEM = "system_stats"
    WORKERS = "worker_stats"
    CONTAINERS = "container_stats"
    BDEVS = "pool_stats of block devices"
    MODULES = "pool_stats of other modules"


@dataclass(slots=True)
class Pool:
    """A pool's container on the node and its statistics; None when the module reports none."""

    container: Container
    stats: PoolStats


@dataclass(frozen=True, slots=True)
class Peaks:
    """Extremes over the samples of the peak window; None where no sample had the field.

    Attributes are in the units of the samples: percent and bytes.
    """

    cpu_usage_pct: float | None = None
    gpu_usage_pct: float | None = None
    hbm_used_bytes: float | None = None
    ram_available_low_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How asking one topic ended.

    Attributes:
        error: None when it was answered.
        seconds: from the start of the node's questions until then.
        asked: whether the node had to be asked; False when what is remembered of it was enough.
    """

    error: RuntimeClientError | None
    seconds: float
    asked: bool = True


@dataclass(slots=True)
class NodeSnapshot:
    """What one scrape learned of one node. Filled on the I/O thread, read anywhere.

    A topic is in ``outcomes`` once it is settled. Each attribute is replaced as a whole, never changed in
    place, so that a reader that does not wait for the end sees each topic either complete or not at all.

    Attributes:
        session: the runtime that answered; None when there was no connection.
        error: why there was no connection.
        newest: the newest sample the runtime has; None while it has none.
        peaks: extremes since the peak window began.
        start_time: when the runtime started, Unix seconds.
        duration: seconds the node took to answer everything, or to fail; None while it has not.
    """

    member: Member
    session: NodeSession | None = None
    error: RuntimeClientError | None = None
    newest: SystemSample | None = None
    peaks: Peaks = Peaks()
    start_time: float | None = None
    workers: tuple[WorkerStats, ...] = ()
    containers: tuple[Container, ...] = ()
    bdevs: tuple[Pool, ...] = ()
    modules: tuple[Pool, ...] = ()
    outcomes: dict[Topic, Outcome] = field(default_factory=dict)
    duration: float | None = None

    @property
    def up(self) -> bool:
        """Whether the node answered: at least one topic, or the connection when nothing had to be asked."""
        if self.session is None:
            return False
        outcomes = self.outcomes.values()
        if any(outcome.error is None and outcome.asked for outcome in outcomes):
            return True
        return self.duration is not None and all(outcome.error is None for outcome in outcomes)

    @property
    def failure(self) -> RuntimeClientError | None:
        """Why the node counts as down; None when it is up."""
        if self.up:
            return None
        return self.error or next((o.error for o in self.outcomes.values() if o.error), NOT_YET)

    def answered(self, topic: Topic) -> bool:
        """Whether the topic is known: asked and answered, or remembered of a node that is up."""
        outcome = self.outcomes.get(topic)
        return outcome is not None and outcome.error is None and (outcome.asked or self.up)

    @property
    def pools(self) -> tuple[Container, ...]:
        """The pools with a container on the node; none while it is down, though they are remembered."""
        return self.containers if self.answered(Topic.CONTAINERS) else ()

    def askable(self, topics: frozenset[Topic]) -> frozenset[Topic]:
        """Those of ``topics`` that this node's runtime can be asked."""
        if self.session is not None and self.session.generation is Generation.Z:
            return topics & {Topic.WORKERS}
        return topics


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A runtime's configuration file as last read.

    Attributes:
        labels: of the node it belongs to, or of the cluster when all nodes share it.
        mtime: Unix time of its last change; None when it cannot be read.
        config: None when it cannot be used; ``error`` then says why.
        entries: its values by path, secrets masked.
    """

    labels: str
    path: Path
    mtime: float | None
    config: RuntimeConfig | None
    error: ConfigError | None = None
    entries: tuple[tuple[str, str], ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the values, in hexadecimal; layout and comments do not count."""
        text = "".join(f"{path}\0{value}\0" for path, value in sorted(self.entries))
        return hashlib.sha256(text.encode(errors="replace")).hexdigest()


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """What one scrape learned of one cluster.

    Attributes:
        labels: ready label text of series about the cluster.
        membership_error: why the membership may be out of date; None when it is current.
    """

    labels: str
    nodes: tuple[NodeSnapshot, ...]
    configs: tuple[ConfigFile, ...] = ()
    membership_error: str | None = None
