"""A thousand simulated nodes: scrapes in time, complete, in bounded memory, also with a tenth of them hung.

Wall and CPU times are printed (`pytest -m scale -rP`), not tested, apart from the scrape's own deadline;
precise budgets are the benchmark's business.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from clio_exporter.poller import NODES_AT_ONCE
from clio_lab.simulator.process import SimulatorProcess
from tests.exporter_process import ExporterProcess, eventually, free_port

pytestmark = [pytest.mark.integration, pytest.mark.scale, pytest.mark.alone, pytest.mark.timeout(600)]

NODES = 1000
WORKERS = 8
BDEVS = 3
DEADLINE = 30.0
SHORT_DEADLINE = 5.0
SCRAPES = 10
MAX_RESIDENT = 400 * 2**20
"""Not the budget, which the benchmark measures, but what says that memory is bounded at all."""
MAX_GROWTH = 32 * 2**20
HUNG = range(0, NODES // 10)
NODE_TIMEOUT = "--runtime.timeout=10s"
"""Within the deadline: simulator, exporter and test share two cores, and other work on the machine must
not make healthy nodes late."""

_UP = re.compile(rb'clio_node_up\{[^}]*node_id="(\d+)"[^}]*\} ([01])')
# What a healthy simulated node exports, by family.
FAMILIES = {
    b"clio_worker_running": WORKERS,
    b"clio_worker_tasks_processed_total": WORKERS,
    b"clio_bdev_capacity_bytes": BDEVS,
    b"clio_bdev_read_bytes_total": 1,  # of the file: memory is not counted
    b"clio_node_cpu_utilization_ratio": 1,
    b"clio_node_memory_available_bytes": 1,
    b"clio_cte_blobs": 1,
}


@dataclass(frozen=True)
class Measured:
    """One scrape: seconds on the clock, CPU seconds of the exporter, its resident bytes, the text."""

    wall: float
    cpu: float
    resident: int
    body: bytes

    @property
    def up(self) -> dict[int, bool]:
        return {
            int(node): value == b"1" for node, value in _UP.findall(b"\n".join(self._lines(b"clio_node_up")))
        }

    def check_up(self, without: Collection[int]) -> None:
        """All nodes but those in `without` are up."""
        up = self.up
        # Counted, not compared: pytest would spend minutes on the difference of a thousand entries.
        wrong = [node for node in range(NODES) if up.get(node) is not (node not in without)]
        if wrong or len(up) != NODES:
            raise AssertionError(
                f"{len(up)} nodes, {sum(up.values())} up; not as they should be: {wrong[:20]}"
            )

    def check_complete(self, without: Collection[int] = ()) -> None:
        """Every node is there; all but those in `without` are up and report everything."""
        self.check_up(without)
        healthy = NODES - len(without)
        found = {family: len(self._lines(family)) for family in FAMILIES}
        assert found == {family: number * healthy for family, number in FAMILIES.items()}

    @property
    def not_reached(self) -> int:
        """Nodes of which nothing was heard before the scrape had to be answered."""
        return self.body.count(b'reason="deadline"')

    def count(self, family: bytes) -> int:
        """Number of samples of a family."""
        return len(self._lines(family))

    def total(self, family: bytes) -> float:
        """Sum of a family."""
        return sum(float(line.rpartition(b" ")[2]) for line in self._lines(family))

    def _lines(self, family: bytes) -> list[bytes]:
        """The samples of a family, which stand together below its TYPE line."""
        _, _, rest = self.body.partition(b"\n# TYPE %s " % family)
        return rest.partition(b"\n#")[0].split(b"\n")[1:]


class Observer:
    """Scrapes an exporter and reads what that costs it from the kernel."""

    def __init__(self, exporter: ExporterProcess) -> None:
        self.exporter = exporter
        self.process = psutil.Process(exporter.pid)

    def scrape(self, deadline: float = DEADLINE, within: float = DEADLINE) -> Measured:
        """One scrape, whose answer must be there `within` so many seconds."""
        before = self._cpu()
        headers = {"X-Prometheus-Scrape-Timeout-Seconds": str(deadline)}
        answer = self.exporter.get("/metrics", headers=headers)
        assert answer.status == 200
        assert answer.seconds < within
        return Measured(answer.seconds, self._cpu() - before, self.process.memory_info().rss, answer.body)

    def first_complete(self, without: Collection[int] = ()) -> tuple[Measured, int]:
        """The first scrape that misses nothing, and how many it took: one, unless the machine is busy."""
        measured: list[Measured] = []

        def attempt() -> bool:
            measured.append(self.scrape())
            measured[-1].check_complete(without)
            return True

        eventually("a complete scrape", attempt, 300)
        return measured[-1], len(measured)

    def _cpu(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)


def report(title: str, scrapes: list[Measured]) -> None:
    walls, cpus = [s.wall for s in scrapes], [s.cpu for s in scrapes]
    print(
        f"{title}: {len(scrapes)} scrapes of {NODES} nodes; wall {statistics.median(walls):.2f} s "
        f"(max {max(walls):.2f}), CPU {statistics.median(cpus):.2f} s (max {max(cpus):.2f}), "
        f"RSS {max(s.resident for s in scrapes) / 2**20:.0f} MiB, "
        f"{len(scrapes[-1].body) / 2**20:.1f} MiB of text"
    )


@pytest.fixture(scope="module")
def _thousand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SimulatorProcess, Path]]:
    hostfile = tmp_path_factory.mktemp("simulator") / "hosts"
    options = ["--nodes", str(NODES), "--workers", str(WORKERS), "--bdevs", str(BDEVS)]
    # Old enough for a full ring: the most that a first contact can cost.
    options += ["--age", "2000", "--hostfile", str(hostfile), "--base-port", str(free_port())]
    with SimulatorProcess(*options, timeout=120) as process:
        yield process, hostfile


@pytest.fixture
def thousand(_thousand: tuple[SimulatorProcess, Path]) -> Iterator[tuple[SimulatorProcess, Path]]:
    """A thousand healthy nodes, which nobody treated against the protocol's rules."""
    process, _ = _thousand
    process.reset_stats()
    yield _thousand
    violations = process.stats()["violations"]
    process.clear()
    assert violations == {}


def test_a_thousand_nodes_are_scraped_in_time_and_bounded_memory(
    thousand: tuple[SimulatorProcess, Path], tmp_path: Path
) -> None:
    _, hostfile = thousand
    # A short window, so that what is remembered for peaks soon has its size.
    arguments = (f"--hostfile={hostfile}", "--collector.node.peak-window=5s", NODE_TIMEOUT)
    with ExporterProcess(tmp_path, *arguments) as exporter:
        observer = Observer(exporter)
        first, attempts = observer.first_complete()
        report(f"first contact (scrape {attempts})", [first])
        # Buffers grow to their size in the first few.
        settled = [observer.scrape() for _ in range(3)][-1].resident
        scrapes = [observer.scrape() for _ in range(SCRAPES)]
        report("in a row", scrapes)
        print("RSS in MiB:", settled >> 20, "then", [scrape.resident >> 20 for scrape in scrapes])
        for scrape in scrapes:
            scrape.check_complete()
        for counter in (b"clio_worker_tasks_processed_total", b"clio_bdev_read_bytes_total"):
            totals = [scrape.total(counter) for scrape in scrapes]
            assert totals == sorted(set(totals))
        assert max(scrape.resident for scrape in scrapes) < MAX_RESIDENT
        assert scrapes[-1].resident - settled < MAX_GROWTH
        # docs/operations.md: three for each node, and 200.
        descriptors = observer.process.num_fds()
        print(f"{descriptors} open files, {observer.process.num_threads()} threads")
        assert descriptors < 3 * NODES + 200
        assert "level=error" not in exporter.log


def test_a_tenth_hung_costs_the_rest_nothing(thousand: tuple[SimulatorProcess, Path], tmp_path: Path) -> None:
    """Half of them read and never answer, half are stopped altogether, while connected and before."""
    process, hostfile = thousand
    with ExporterProcess(tmp_path, f"--hostfile={hostfile}", NODE_TIMEOUT) as exporter:
        observer = Observer(exporter)
        observer.first_complete()
        half = len(HUNG) // 2
        process.set_fault(HUNG[:half], "silent")
        process.set_fault(HUNG[half:], "hang")
        scrapes = [observer.scrape() for _ in range(5)]
        report("a tenth hung", scrapes)
        for scrape in scrapes:
            scrape.check_complete(without=HUNG)
        assert observer.process.num_fds() < 3 * NODES + 200
        assert max(scrape.resident for scrape in scrapes) < MAX_RESIDENT
        with ExporterProcess(tmp_path, f"--hostfile={hostfile}", NODE_TIMEOUT) as late:
            first, attempts = Observer(late).first_complete(without=HUNG)
            report(f"first contact with a tenth hung (scrape {attempts})", [first])
        process.clear()
        process.restart_node(HUNG)
        recovered, attempts = observer.first_complete()
        report(f"recovered (scrape {attempts})", [recovered])


def test_a_cold_start_with_a_short_deadline_misses_no_healthy_node(
    thousand: tuple[SimulatorProcess, Path], tmp_path: Path
) -> None:
    """A tenth is silent or answers garbage, all over the cluster, and nothing is remembered yet."""
    process, hostfile = thousand
    silent, garbage = set(range(3, NODES, 20)), set(range(13, NODES, 20))
    process.set_fault(silent, "silent")
    process.set_fault(garbage, "garbage")
    try:
        with ExporterProcess(tmp_path, f"--hostfile={hostfile}") as exporter:
            observer = Observer(exporter)
            # More time, because other work may have the processors; not because it may take so long.
            first = observer.scrape(SHORT_DEADLINE, 4 * SHORT_DEADLINE)
            scrapes = [first]
            report("cold start with a tenth silent or lying", scrapes)
            # Nobody was read at length before all had been asked, however little time there was.
            assert first.not_reached <= NODES_AT_ONCE or first.count(b"clio_bdev_capacity_bytes") == 0
            healthy = NODES - len(silent | garbage)
            while sum(scrapes[-1].up.values()) < healthy and len(scrapes) < 30:
                scrapes.append(observer.scrape(SHORT_DEADLINE, 4 * SHORT_DEADLINE))
            scrapes[-1].check_up(silent | garbage)
            print(f"all healthy nodes are up in scrape {len(scrapes)}")
            complete, attempts = observer.first_complete(without=silent | garbage)
            report(f"complete (scrape {len(scrapes) + attempts})", [complete])
    finally:
        process.clear()
        process.restart_node(silent | garbage)
