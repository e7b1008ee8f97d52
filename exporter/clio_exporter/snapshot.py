"""What one scrape learned of one node, for the collectors to turn into samples."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from clio_client import Container, Generation, Pool, SystemSample, WorkerStats
from clio_client.config.runtime_files import ConfigFile
from clio_client.errors import DeadlineError, RuntimeClientError
from clio_client.membership import Member
from clio_client.transport.interface import NodeSession
from clio_exporter.exposition import KeptTexts
from clio_exporter.job_map import JobList

NOT_YET: Final = DeadlineError("nothing was heard of the node before the scrape's deadline")
"""Why a node counts as down of which nothing has arrived when the scrape had to be answered."""


class Topic(enum.Enum):
    """What can be asked of a node; collectors name the topics they need."""

    SYSTEM = "system_stats"
    WORKERS = "worker_stats"
    CONTAINERS = "container_stats"
    BDEVS = "pool_stats of block devices"
    MODULES = "pool_stats of other modules"


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
class TopicResult:
    """How a topic became known, or why it did not.

    Attributes:
        error: None when it was answered, or is remembered from an earlier scrape.
        seconds: from the start of the node's questions until then.
    """

    error: RuntimeClientError | None
    seconds: float


@dataclass(slots=True)
class NodeSnapshot:
    """What one scrape learned of one node. Filled on the I/O thread, read anywhere.

    A topic is in ``results`` once it is known or has failed. Each attribute is replaced as a whole, never
    changed in place, so that a reader that does not wait for the end sees each topic either complete or not
    at all.

    Attributes:
        session: the runtime that answered; None when there was no connection.
        error: why there was no connection, or no answer to the question for the node's state.
        heard: whether the node has answered anything in this scrape; what is remembered does not count.
        newest: the newest sample the runtime has; None while it has none.
        peaks: extremes since the peak window began.
        start_time: when the runtime started, Unix seconds.
        duration: seconds the node took to answer everything, or to fail; None while it has not.
        round_trip: seconds of one small question that was asked alone; None while it is not answered.
        questions: how many the node's poller has asked, in this scrape and before.
        kept: texts that outlive the scrape, for collectors.
    """

    member: Member
    session: NodeSession | None = None
    error: RuntimeClientError | None = None
    heard: bool = False
    newest: SystemSample | None = None
    peaks: Peaks = Peaks()
    start_time: float | None = None
    workers: tuple[WorkerStats, ...] = ()
    containers: tuple[Container, ...] = ()
    bdevs: tuple[Pool, ...] = ()
    modules: tuple[Pool, ...] = ()
    results: dict[Topic, TopicResult] = field(default_factory=dict)
    duration: float | None = None
    round_trip: float | None = None
    questions: int | None = None
    kept: KeptTexts = field(default_factory=KeptTexts, repr=False, compare=False)

    @property
    def up(self) -> bool:
        """Whether the node answered at least one question."""
        return self.heard

    @property
    def failure(self) -> RuntimeClientError | None:
        """Why the node counts as down; None when it is up."""
        if self.up:
            return None
        return self.error or next((o.error for o in self.results.values() if o.error), NOT_YET)

    def answered(self, topic: Topic) -> bool:
        """Whether the topic is known, of a node that is up."""
        result = self.results.get(topic)
        return result is not None and result.error is None and self.up

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
class ClusterSnapshot:
    """What one scrape learned of one cluster.

    Attributes:
        name: the cluster's name; empty when it has none.
        membership_error: why the membership may be out of date; None when it is current.
        jobs: what the scheduler has on nodes, of all clusters; None where nobody keeps that.
    """

    name: str
    nodes: tuple[NodeSnapshot, ...]
    configs: tuple[ConfigFile, ...] = ()
    membership_error: str | None = None
    jobs: JobList | None = None
