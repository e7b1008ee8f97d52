"""Real runtimes with traffic for a batch job, until SIGTERM: `python cluster_in_job.py DIRECTORY NODES`.

`DIRECTORY/ready` appears when all serve; `hostfile` is theirs.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.install import RuntimeInstall
from clio_lab.demo.ports import find_base_port
from clio_lab.demo.state import State
from clio_lab.demo.traffic import Traffic
from clio_web.signals import set_by_signals


def main() -> None:
    root, nodes = Path(sys.argv[1]), int(sys.argv[2])
    ended = threading.Event()
    with set_by_signals(ended, signal.SIGTERM):
        run(root, nodes, ended)


def run(root: Path, nodes: int, ended: threading.Event) -> None:
    root.mkdir(parents=True)
    state = State(root / "state.json")
    base_port = find_base_port(nodes)
    cluster = LocalCluster(
        root, nodes, install=RuntimeInstall.current(), base_port=base_port, state=state, interrupt=ended
    )
    cluster.start(timeout=150)
    try:
        traffic = Traffic(cluster, state)
        traffic.start(lambda line: print(line, flush=True))
        try:
            (root / "ready").touch()
            # A test that was killed leaves no job behind.
            ended.wait(300)
        finally:
            traffic.stop()
    finally:
        cluster.stop()


if __name__ == "__main__":
    main()
