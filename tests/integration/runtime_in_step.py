"""A runtime with traffic in a job's step, of all that the step starts on hosts of their own: until SIGTERM.

    srun --ntasks-per-node=1 python runtime_in_step.py DIRECTORY HOSTFILE USER

Each has a directory below DIRECTORY, named after its place in the hostfile, and the usual port. USER, with
that place, names what a runtime puts elsewhere.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from clio_client.address import DEFAULT_PORT
from clio_lab.demo.cluster import TIMER_SLACK_US, node_environment
from clio_lab.demo.install import RuntimeInstall
from clio_lab.demo.node import LocalNode
from clio_lab.demo.runtime_config import NodeSettings, render
from clio_lab.demo.state import State
from clio_lab.traffic import LoadGenerator, Target
from clio_web.signals import set_by_signals

# A test that was killed leaves no job behind.
SECONDS = 300


def main() -> None:
    root, hostfile, user = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    ended = threading.Event()
    with set_by_signals(ended, signal.SIGTERM):
        run(root, hostfile, user, ended)


def run(root: Path, hostfile: Path, user: str, ended: threading.Event) -> None:
    end = threading.Timer(SECONDS, ended.set)
    end.daemon = True
    end.start()
    index = int(os.environ["SLURM_PROCID"])
    # One user on several hosts, which share /tmp here as they would not elsewhere.
    user = f"{user}-{index}"
    directory = root / f"n{index}"
    directory.mkdir(parents=True)
    state = State(directory / "state.json")
    outside = Path("/tmp") / f"clio_{user}"
    state.remember(directories=[str(outside)])
    settings = NodeSettings(
        port=DEFAULT_PORT,
        store=directory / "store",
        conf_dir=directory / "conf",
        namespace=f"n{index}",
        hostfile=hostfile,
    )
    install = RuntimeInstall.current()
    node = LocalNode(
        index=index,
        host=hostfile.read_text(encoding="utf-8").split()[index],
        port=settings.port,
        directory=directory,
        command=install.start_command,
        environment=node_environment(settings, directory, user, state),
        state=state,
        timer_slack_us=TIMER_SLACK_US,
        interrupt=ended,
    )
    node.config_path.write_text(render(settings, install.release), encoding="utf-8")
    target = Target(str(index), node.environment, directory, life=lambda: node.pid)
    try:
        node.start()
        node.wait_ready(150)
        # As many nodes take turns as there are: together, what one host has to bear.
        interval = float(os.environ["SLURM_NTASKS"])
        LoadGenerator(interval=interval).run([target], str(install.bench), ended)
    finally:
        node.terminate()
        state.clean()


if __name__ == "__main__":
    main()
