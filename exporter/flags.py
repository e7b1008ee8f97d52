"""Command-line flags that say what is scraped and how; those of HTTP and logs are in exporter.web.flags."""

from __future__ import annotations

import argparse
from pathlib import Path

from exporter.collectors import COLLECTORS
from exporter.config.settings import GENERATIONS, TRANSPORTS, Settings, default_settings, load_settings
from exporter.web.flags import duration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags shared by serving and `scrape`. What is not given comes from the settings file."""
    what = parser.add_argument_group("cluster")
    what.add_argument(
        "--config.file",
        dest="config_file",
        metavar="FILE",
        help="settings file (YAML), see docs/configuration.md",
    )
    what.add_argument("--hostfile", metavar="FILE", help="nodes, one host or host:port a line")
    what.add_argument("--nodes", metavar="HOST[:PORT],...", help="nodes, instead of a hostfile")
    what.add_argument(
        "--seed", metavar="HOST[:PORT]", help="node that is asked for the others when there is no hostfile"
    )
    what.add_argument("--port", type=int, metavar="PORT", help="base port of nodes listed without one (9413)")
    what.add_argument(
        "--runtime-config", dest="runtime_config", metavar="FILE", help="the runtime's own configuration file"
    )
    what.add_argument(
        "--generation",
        choices=GENERATIONS,
        help="protocol generation of all nodes, instead of finding it out",
    )
    how = parser.add_argument_group("runtime")
    how.add_argument(
        "--runtime.timeout",
        dest="runtime_timeout",
        type=duration,
        metavar="DURATION",
        help="time a node has to answer (3s)",
    )
    how.add_argument(
        "--runtime.reply-port",
        dest="runtime_reply_port",
        type=int,
        metavar="PORT",
        help="port that runtimes dial back to (9778; the next nine, then any, where it is taken)",
    )
    how.add_argument(
        "--runtime.reply-address",
        dest="runtime_reply_address",
        metavar="ADDRESS",
        help="address of this host that runtimes dial back to (that of the route to each node)",
    )
    how.add_argument(
        "--runtime.transport",
        dest="runtime_transport",
        choices=TRANSPORTS,
        help="zmq, or the runtime's compiled Python binding (zmq)",
    )
    how.add_argument(
        "--runtime.max-in-flight",
        dest="runtime_max_in_flight",
        type=int,
        metavar="N",
        help="requests a node has to answer at the same time (4)",
    )
    collectors = parser.add_argument_group("collectors")
    for collector in COLLECTORS:
        collectors.add_argument(
            f"--collector.{collector.name}",
            dest=f"collector_{collector.name}",
            action=argparse.BooleanOptionalAction,
            default=None,
            help=f"switch the {collector.name} collector on or off",
        )
    collectors.add_argument(
        "--collector.pool.interval",
        dest="pool_interval",
        type=duration,
        metavar="DURATION",
        help="time between two lists of a node's pools (60s)",
    )
    collectors.add_argument(
        "--collector.node.peak-window",
        dest="peak_window",
        type=duration,
        metavar="DURATION",
        help="time over which peaks are reported; at least the scrape interval (60s)",
    )


def add_probe_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `/probe`."""
    parser.add_argument(
        "--probe.allow-any",
        dest="probe_allow_any",
        action="store_true",
        default=None,
        help="let /probe ask targets that are not members of a configured cluster",
    )


def settings(args: argparse.Namespace) -> Settings:
    """The settings file named by the arguments, or the defaults, with the other arguments laid over it.

    Raises:
        ConfigError: the file, or a flag's value, cannot be used.
    """
    base = load_settings(Path(args.config_file)) if args.config_file else default_settings()
    switches = {c.name: getattr(args, f"collector_{c.name}") for c in COLLECTORS}
    return base.with_overrides(
        hostfile=args.hostfile,
        nodes=args.nodes.split(",") if args.nodes else None,
        seed=args.seed,
        port=args.port,
        runtime_config=args.runtime_config,
        generation=args.generation,
        timeout_seconds=args.runtime_timeout,
        reply_port=args.runtime_reply_port,
        reply_address=args.runtime_reply_address,
        transport=args.runtime_transport,
        max_in_flight=args.runtime_max_in_flight,
        enable_collectors=[name for name, on in switches.items() if on],
        disable_collectors=[name for name, on in switches.items() if on is False],
        pool_interval_seconds=args.pool_interval,
        node_peak_window_seconds=args.peak_window,
        allow_any=getattr(args, "probe_allow_any", None),
    )
