"""``clio-exporter simulate``: options of the simulator and its start."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import sys
from pathlib import Path

from clio_client.address import CLIENT_PORT_OFFSET, HIGHEST_PORT
from clio_lab.simulator.faults import KINDS, Fault, parse_node_fault
from clio_lab.simulator.recorded import GENERATIONS
from clio_lab.simulator.server import (
    SAME_ADDRESS_STEP,
    SimulatorConfig,
    SimulatorError,
    run_simulator,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the simulator on ``parser``."""
    default = SimulatorConfig()
    faults = "\n".join(f"  {kind:13} {text}" for kind, text in KINDS.items())
    parser.description = "Answer as many runtimes, with recorded frames in which the counters move."
    parser.epilog = f"faults:\n{faults}"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--nodes", type=int, default=default.nodes, metavar="N", help="simulated nodes (default %(default)s)")
    add(
        "--address",
        default=default.address,
        help="IPv4 address of node 0; node i has the i-th after it (%(default)s)",
    )
    add(
        "--base-port",
        type=int,
        default=default.base_port,
        help="base port; clients connect to base + 3 (%(default)s)",
    )
    add("--same-address", action="store_true", help="all nodes on one address, base ports 10 apart")
    add("--hostfile", type=Path, metavar="PATH", help="write the nodes here, a line host:port each")
    add("--hostname-format", default=default.hostname_format, metavar="TEXT",
        help="hostname that a node reports, from {index} and {address} (default %(default)s)")  # fmt: skip
    add(
        "--generation",
        choices=GENERATIONS,
        default=default.generation,
        help="protocol generation (%(default)s)",
    )
    add(
        "--node-generation",
        action="append",
        default=[],
        metavar="I=G",
        help="generation of one node (repeatable)",
    )
    add("--workers", type=int, default=default.workers, help="worker threads a node (default %(default)s)")
    add("--bdevs", type=int, default=default.bdevs, help="block devices a node (default %(default)s)")
    add("--arrays", type=int, default=default.arrays, help="arrays of devices a node (default %(default)s)")
    add(
        "--rate", type=float, default=default.rate, help="factor on all counters' speed (default %(default)s)"
    )
    add(
        "--age",
        type=float,
        default=default.age,
        metavar="SECONDS",
        help="how long the nodes have been up (%(default)s)",
    )
    add(
        "--ring",
        type=int,
        default=default.ring,
        help="system_stats samples a node keeps (default %(default)s)",
    )
    add(
        "--fault",
        action="append",
        default=[],
        metavar="I[-J]=FAULT",
        help="fault of some nodes from the start (repeatable)",
    )
    add("--seed", type=int, default=default.seed, help="seed of garbage (default %(default)s)")
    add("--heartbeat", type=float, default=default.heartbeat, metavar="SECONDS",
        help="ZMTP ping interval, 0 for none (default %(default)s, as the runtime)")  # fmt: skip
    add("--io-threads", type=int, default=default.io_threads, help="ZeroMQ I/O threads (default %(default)s)")
    add(
        "--control",
        action="store_true",
        help="take orders as JSON lines on standard input; its end stops the simulation",
    )


def config_from(args: argparse.Namespace) -> SimulatorConfig:
    """Check the options; :class:`ValueError` names the one that is wrong."""
    nodes: int = args.nodes
    if nodes < 1:
        raise ValueError(f"--nodes {nodes}: at least one node")
    for name, least in (("workers", 0), ("bdevs", 0), ("arrays", 0), ("ring", 1), ("io_threads", 1)):
        if getattr(args, name) < least:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(args, name)}: at least {least}")
    for name in ("rate", "age", "heartbeat"):
        if getattr(args, name) < 0:
            raise ValueError(f"--{name} {getattr(args, name)}: must not be negative")
    try:
        address = ipaddress.IPv4Address(args.address)
        (address + (0 if args.same_address else nodes - 1)).compressed  # noqa: B018 - raises past the last address
    except (ValueError, ipaddress.AddressValueError) as error:
        raise ValueError(f"--address {args.address}: {error}") from None
    last_port = (
        args.base_port + CLIENT_PORT_OFFSET + (SAME_ADDRESS_STEP * (nodes - 1) if args.same_address else 0)
    )
    if args.base_port < 1 or last_port > HIGHEST_PORT:
        raise ValueError(f"--base-port {args.base_port}: the ports would end at {last_port}")
    try:
        args.hostname_format.format(index=0, address="127.0.0.1")
    except (KeyError, IndexError, ValueError):
        raise ValueError(
            f"--hostname-format {args.hostname_format!r}: only {{index}} and {{address}}"
        ) from None
    faults: list[tuple[range, Fault]] = [parse_node_fault(text, nodes) for text in args.fault]
    return SimulatorConfig(
        nodes=nodes,
        generation=args.generation,
        generations=dict(_node_generation(text, nodes) for text in args.node_generation),
        workers=args.workers,
        bdevs=args.bdevs,
        arrays=args.arrays,
        rate=args.rate,
        age=args.age,
        ring=args.ring,
        address=args.address,
        base_port=args.base_port,
        same_address=args.same_address,
        hostname_format=args.hostname_format,
        hostfile=args.hostfile,
        seed=args.seed,
        heartbeat=args.heartbeat,
        io_threads=args.io_threads,
        control=args.control,
        faults=faults,
    )


def _node_generation(text: str, nodes: int) -> tuple[int, str]:
    index, sign, generation = text.partition("=")
    if not sign or not index.isdigit() or int(index) >= nodes or generation not in GENERATIONS:
        raise ValueError(f"--node-generation {text!r}: expected <node>=<C, B or A>")
    return int(index), generation


def run(args: argparse.Namespace) -> int:
    """Run the simulator until it is told to stop; 2 for bad options, 1 when it cannot start."""
    try:
        config = config_from(args)
    except ValueError as error:
        print(f"simulate: {error}", file=sys.stderr)
        return 2
    try:
        asyncio.run(run_simulator(config))
    except (SimulatorError, OSError) as error:
        print(f"simulate: {error}", file=sys.stderr)
        return 1
    return 0
