"""`clio-exporter demo`: a real cluster with traffic and all that watches it, until Ctrl-C.

Only the standard library is imported here: the exporter's command line adds these options also
where the demo's own packages are not installed.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from clio_client.address import DEFAULT_PORT
from clio_lab.demo.errors import DemoError, InterruptedStartError
from clio_web.signals import set_by_signals

PORT_STEP = 10

_SERVERS = {"control-api": 5000, "prometheus": 9090, "alertmanager": 9093, "grafana": 3000}
"""The port that each tries first (a test compares with where it is defined)."""
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the demo's options to a parser (a subcommand's, or one of its own)."""
    parser.add_argument("--nodes", type=int, default=4, metavar="N", help="number of runtimes (default: 4)")
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path(".demo"),
        metavar="DIR",
        help="directory for configuration, data and logs (default: .demo)",
    )
    parser.add_argument(
        "--listen",
        default="127.0.0.1:9777",
        metavar="HOST:PORT",
        help="address of the exporter (default: 127.0.0.1:9777)",
    )
    parser.add_argument(
        "--base-port",
        type=int,
        default=DEFAULT_PORT,
        metavar="PORT",
        help=f"port of the first runtime; the next ones are {PORT_STEP} apart (default: %(default)s)",
    )
    for server, default in _SERVERS.items():
        parser.add_argument(
            f"--{server}-port",
            type=int,
            metavar="PORT",
            help=f"on 127.0.0.1 (default: the first free one from {default} on)",
        )
    parser.add_argument("--no-grafana", action="store_true", help="do without Grafana; pull no image")
    parser.add_argument(
        "--open", action="store_true", help="open Grafana, or else Prometheus, in a browser when it is ready"
    )
    parser.add_argument("--no-traffic", action="store_true", help="leave the runtimes idle")


def run(args: argparse.Namespace) -> int:
    """Run the demo until SIGINT, SIGTERM or SIGHUP; return the exit code, 1 when it could not start."""
    stop = threading.Event()
    with set_by_signals(stop, *_STOP_SIGNALS):
        try:
            _run(args, stop)
        except InterruptedStartError:
            return 0
        except DemoError as error:
            print(f"clio-exporter demo: {error}", file=sys.stderr, flush=True)
            return 1
    return 0


def _run(args: argparse.Namespace, stop: threading.Event) -> None:
    try:
        from clio_lab.demo import session
    except ModuleNotFoundError as error:
        raise DemoError(
            f"the package {error.name} is missing: run {sys.executable} -m pip install 'clio-exporter[demo]'"
        ) from None
    options = session.Options(
        nodes=args.nodes,
        directory=args.dir,
        listen=args.listen,
        base_port=args.base_port,
        port_step=PORT_STEP,
        traffic=not args.no_traffic,
        control_api_port=args.control_api_port,
        prometheus_port=args.prometheus_port,
        alertmanager_port=args.alertmanager_port,
        grafana_port=args.grafana_port,
        grafana=not args.no_grafana,
        open_browser=args.open,
    )
    session.run(options, stop)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python -m clio_lab.demo.command`."""
    parser = argparse.ArgumentParser(prog="clio-exporter demo", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
