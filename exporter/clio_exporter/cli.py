"""The `clio-exporter` command: serve (without a subcommand), scrape, demo, simulate."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from clio_client import __version__
from clio_client.config import table
from clio_client.config.errors import ConfigError
from clio_client.errors import TransportUnavailableError
from clio_exporter import flags, scrape_command
from clio_exporter.engine import Engine
from clio_exporter.http.app import create_app
from clio_exporter.telemetry import Telemetry
from clio_web import logs
from clio_web.errors import WebConfigError
from clio_web.logs import get_logger
from clio_web.server import ListenError, WebServer

_log = get_logger(__name__)

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_SUBCOMMANDS = ("scrape", "demo", "simulate", "dashboards", "rules")
_DESCRIPTION = """\
Prometheus exporter for clusters that run IOWarp's CLIO runtime.

Without a subcommand it serves metrics until it is stopped; nodes may come and go meanwhile.
  clio-exporter scrape     print one scrape and exit
  clio-exporter demo       a real cluster on this machine, with traffic, to look at
  clio-exporter simulate   simulated nodes, for tests of scale and faults
  clio-exporter dashboards write Grafana dashboards and provisioning for your names
  clio-exporter rules      write Prometheus rules and configuration for your names
Each takes --help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in _SUBCOMMANDS:
        return _subcommand(arguments[0], arguments[1:])
    parser = argparse.ArgumentParser(
        prog="clio-exporter",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"clio-exporter {__version__}")
    flags.add_arguments(parser)
    flags.add_serve_arguments(parser)
    return _serve(parser.parse_args(arguments))


def _subcommand(name: str, arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog=f"clio-exporter {name}", allow_abbrev=False)
    if name == "scrape":
        scrape_command.add_arguments(parser)
        parser.add_argument("--log.level", dest="log_level", choices=list(logs.LEVELS), default="error")
        args = parser.parse_args(arguments)
        logs.configure(args.log_level)
        raise_descriptor_limit()
        return scrape_command.run(args, os.environ, Path.home())
    if name in ("dashboards", "rules"):
        from clio_exporter.kit import command as kit

        add, run = {
            "dashboards": (kit.add_dashboards_arguments, kit.run_dashboards),
            "rules": (kit.add_rules_arguments, kit.run_rules),
        }[name]
        add(parser)
        return run(parser.parse_args(arguments))
    # The other two need more than the exporter does; who only exports must not pay for it.
    if name == "demo":
        from clio_lab.demo import command as demo

        demo.add_arguments(parser)
        return demo.run(parser.parse_args(arguments))
    from clio_lab.simulator import command as simulator

    simulator.add_arguments(parser)
    return simulator.run(parser.parse_args(arguments))


def _serve(args: argparse.Namespace) -> int:
    logs.configure(**table.resolved(flags.LOG, vars(args)))
    raise_descriptor_limit()
    # A large scrape makes hundreds of thousands of objects without cycles; looking for some after every
    # 700 costs a fifth of it.
    gc.set_threshold(50_000, 20, 50)
    return_large_blocks()
    try:
        options = flags.web_options(args)
        telemetry = Telemetry(silent=options.disable_exporter_metrics)
        engine = Engine(lambda: flags.settings(args), os.environ, Path.home(), telemetry)
        with contextlib.closing(engine):
            app = create_app(engine, options, engine.telemetry)
            for cluster in engine.summary():
                _log.info("cluster", name=cluster.name, nodes=cluster.nodes, source=cluster.source)
            product = f"clio-exporter/{__version__}"
            WebServer(app, options, engine.reload, reload_error=ConfigError, product=product).serve_forever()
    except (ConfigError, WebConfigError, ListenError, TransportUnavailableError) as error:
        sys.stderr.write(f"clio-exporter: {error}\n")
        return 1
    return 0


def raise_descriptor_limit() -> None:
    """Allow as many open files as this user may have: every node takes two."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # What the system grants in name it may still refuse in fact; then the soft limit stays.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def return_large_blocks() -> None:
    """Keep glibc from holding on to what large answers needed: worth a tenth of the memory of 1,000 nodes."""
    with contextlib.suppress(OSError, AttributeError):  # another C library does as it likes
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 2)
        libc.mallopt(_M_MMAP_THRESHOLD, 128 * 1024)


if __name__ == "__main__":
    sys.exit(main())
