"""One demo from its checks to its clean end."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from clio_client.address import parse_host_port
from clio_lab.demo import extras, preflight
from clio_lab.demo.background import Background
from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.control_api import ControlApiComponent
from clio_lab.demo.errors import DemoError
from clio_lab.demo.install import RuntimeInstall
from clio_lab.demo.runtime_config import Capacities
from clio_lab.demo.stack import (
    ClusterComponent,
    Component,
    ExporterComponent,
    Stack,
)
from clio_lab.demo.state import State
from clio_lab.demo.traffic import Traffic

HEALTH_SECONDS = 1.0
SETTLE_SECONDS = 5.0


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    nodes: int
    directory: Path
    listen: str
    base_port: int
    port_step: int
    traffic: bool
    control_api_port: int | None = None
    prometheus_port: int | None = None
    alertmanager_port: int | None = None
    grafana_port: int | None = None
    grafana: bool = True
    open_browser: bool = False


def run(options: Options, stop: threading.Event) -> None:
    """Check, start everything, and stop it when `stop` is set.

    Raises DemoError when something is in the way or fails to start; nothing is left then either.
    """
    directory = options.directory.absolute()
    capacities = Capacities()
    preflight.check_nodes(options.nodes)
    preflight.check_base_port(options.base_port, options.nodes, options.port_step)
    try:
        host, port = parse_host_port(options.listen)
        host = host or "0.0.0.0"  # noqa: S104 - what ":9777" says
    except ValueError as error:
        raise DemoError(f"--listen {error}") from None
    install = RuntimeInstall.current()
    with _only_demo_in(directory) as state:
        preflight.check_memory(options.nodes, capacities, preflight.available_memory())
        preflight.check_disk(options.nodes, capacities, directory, preflight.available_disk(directory))
        preflight.check_ports(options.base_port, options.nodes, options.port_step)
        preflight.check_listen(host, port)
        ports = extras.choose_ports(
            options.control_api_port,
            options.prometheus_port,
            options.alertmanager_port,
            options.grafana_port,
        )
        cluster = LocalCluster(
            directory,
            options.nodes,
            install=install,
            base_port=options.base_port,
            port_step=options.port_step,
            capacities=capacities,
            state=state,
            interrupt=stop,
        )
        exporter = ExporterComponent(cluster, state, host, port, stop)
        prometheus, *others = beside = extras.make(
            directory,
            ports,
            exporter.address,
            state,
            grafana=options.grafana,
            open_browser=options.open_browser,
        )
        # These get ready beside the runtimes; Prometheus finds an exporter at its first scrape.
        control = ControlApiComponent(cluster, state, stop, ports.control_api)
        components: list[Component] = [*others, ClusterComponent(cluster), exporter, prometheus, control]
        if options.traffic:
            components.append(Traffic(cluster, state))
        _run_stack(Stack(components), [control, exporter], beside, stop)


def _run_stack(
    stack: Stack, parts: Sequence[Component], beside: Sequence[Background], stop: threading.Event
) -> None:
    stack.start(_say)
    try:
        waiting = _settle(beside, stop)
        _tell(stack, [*beside[::-1], *parts])
        for part in beside:
            if part not in waiting and part.missing is not None:
                _say(_outcome(part))
        known: set[str] = set()
        while not stop.wait(HEALTH_SECONDS):
            for part in [part for part in waiting if part.settle(0)]:
                waiting.remove(part)
                _say(_outcome(part))
            problems = stack.health()
            for problem in problems:
                if problem not in known:
                    _say(problem)
            known = set(problems)
    finally:
        stack.stop(_say)
    _say("stopped")


def _settle(beside: Sequence[Background], stop: threading.Event) -> set[Background]:
    """Wait a short time for what gets ready in the background; return what has not."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while waiting := {part for part in beside if not part.settle(0)}:
        if time.monotonic() >= deadline or stop.wait(0.05):
            break
    return waiting


def _tell(stack: Stack, parts: Sequence[Component]) -> None:
    """Say where the parts are, the exporter last, and how to ask them."""
    _say(f"ready: {parts[-1].where} (Ctrl-C stops everything)")
    _say("to open in a browser:")
    for part in parts:
        if part.where is not None:
            name, _, address = part.where.partition(" http")
            _say(f"    {name:<13} http{address}")
    _say("to ask in another terminal:")
    for line in stack.commands():
        _say(f"    {line}")


def _outcome(part: Background) -> str:
    return f"ready: {part.where}" if part.missing is None else f"missing: {part.name}: {part.missing}"


@contextmanager
def _only_demo_in(directory: Path) -> Iterator[State]:
    """Hold `directory` for this process, clean up after an earlier run there, and at the end after this.

    Raises DemoError when another demo runs there.
    """
    path = directory / "state.json"
    lock = FileLock(directory / "lock", timeout=0)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        owner = State.load(path).owner
        who = f" (pid {owner.pid})" if owner is not None else ""
        raise DemoError(
            f"a demo already runs in {directory}{who}: stop it first, or give another --dir"
        ) from None
    except OSError as error:
        raise DemoError(f"cannot use {directory}: {error.strerror}: give another --dir") from None
    try:
        state = State.load(path)
        try:
            for line in state.clean():
                _say(line)
        except OSError as error:
            raise DemoError(
                f"cannot clean up after an earlier demo in {directory}: {error}: "
                "run as the user who started it, or give another --dir"
            ) from None
        state.set_owner("demo")
        try:
            yield state
        finally:
            state.clean()
    finally:
        lock.release()


def _say(line: str) -> None:
    try:
        print(line, flush=True)
    except OSError:
        # The reader of a pipe is gone; nobody listens, but everything has still to be stopped.
        sys.stdout = None
