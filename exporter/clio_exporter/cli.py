"""The `clio-exporter` command: serve (without a command), scrape, doctor, top, record, demo and more."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import os
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from clio_client import __version__
from clio_client.config import commands, table
from clio_client.config.commands import Command
from clio_client.config.errors import ConfigError
from clio_client.errors import TransportUnavailableError
from clio_exporter import effective, flags, scrape_command, sd_file
from clio_exporter.engine import Engine
from clio_exporter.http.app import create_app
from clio_exporter.messages import failed
from clio_exporter.telemetry import Telemetry
from clio_web import logs
from clio_web.errors import WebConfigError
from clio_web.logs import get_logger
from clio_web.server import ListenError, WebServer

_log = get_logger(__name__)

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_DESCRIPTION = """\
Prometheus exporter for clusters that run IOWarp's CLIO runtime.

Without a command it serves metrics until it is stopped; nodes may come and go meanwhile.
{commands}
Each takes --help."""

_Run = Callable[[argparse.Namespace], int]
_Halves = tuple[Callable[[argparse.ArgumentParser], None], _Run]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        return commands.run("clio-exporter", arguments[0], COMMANDS[arguments[0]], arguments[1:])
    return _serve(_parser().parse_args(arguments))


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  clio-exporter {name:10} {command.help}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="clio-exporter",
        description=_DESCRIPTION.format(commands=listed),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"clio-exporter {__version__}")
    flags.add_arguments(parser)
    flags.add_serve_arguments(parser)
    return parser


def whole_parser() -> argparse.ArgumentParser:
    """All flags and commands, for completion and the manual page."""
    return commands.whole(_parser(), COMMANDS)


def _scrape() -> _Halves:
    def add(parser: argparse.ArgumentParser) -> None:
        scrape_command.add_arguments(parser)
        parser.add_argument("--log.level", dest="log_level", choices=list(logs.LEVELS), default="error")

    def run(args: argparse.Namespace) -> int:
        logs.configure(args.log_level)
        raise_descriptor_limit()
        return scrape_command.run(args, os.environ, Path.home())

    return add, run


def _with_nodes(run: Callable[[argparse.Namespace, Mapping[str, str], Path], int]) -> _Run:
    """Of a command that asks nodes: it logs errors alone, and may have a connection to each."""

    def prepared(args: argparse.Namespace) -> int:
        logs.configure("error")
        raise_descriptor_limit()
        return run(args, os.environ, Path.home())

    return prepared


def _doctor() -> _Halves:
    from clio_exporter.doctor import command

    return command.add_arguments, _with_nodes(command.run)


def _top() -> _Halves:
    from clio_exporter.top import command

    return command.add_arguments, _with_nodes(command.run)


def _record() -> _Halves:
    from clio_exporter.record import command

    return command.add_arguments, _with_nodes(command.run)


def _backfill() -> _Halves:
    from clio_exporter.backfill import command

    return command.add_arguments, _with_nodes(command.run)


def _job() -> _Halves:
    from clio_exporter.job import command

    def run(args: argparse.Namespace) -> int:
        logs.configure("error")
        return command.run(args)

    return command.add_arguments, run


def _dashboards() -> _Halves:
    from clio_exporter.kit import command

    return command.add_dashboards_arguments, command.run_dashboards


def _rules() -> _Halves:
    from clio_exporter.kit import command

    return command.add_rules_arguments, command.run_rules


def _kubernetes() -> _Halves:
    from clio_exporter import kubernetes_command

    return kubernetes_command.add_arguments, kubernetes_command.run


# These two need more than the exporter does; who only exports must not pay for it.
def _demo() -> _Halves:
    from clio_lab.demo import command

    return command.add_arguments, command.run


def _simulate() -> _Halves:
    from clio_lab.simulator import command

    return command.add_arguments, command.run


COMMANDS: Final = {
    "scrape": Command("print one scrape and exit", _scrape),
    "doctor": Command("look for what is wrong, from the hostfile to Grafana, and say what to do", _doctor),
    "top": Command("show the cluster in a terminal, live or as it was in a job", _top),
    "record": Command("write what the nodes remember of the last 17 minutes, and go on", _record),
    "backfill": Command("fill what a Prometheus missed of the last 17 minutes", _backfill),
    "job": Command("monitor one job from inside it, without root, and report what happened", _job),
    "demo": Command("a real cluster on this machine, with traffic, to look at", _demo),
    "simulate": Command("simulated nodes, for tests of scale and faults", _simulate),
    "dashboards": Command("write Grafana dashboards and provisioning for your names", _dashboards),
    "rules": Command("write Prometheus rules and configuration for your names", _rules),
    "kubernetes": Command("write manifests of all of it for Kubernetes", _kubernetes),
    "completion": commands.completion(whole_parser),
}


def _serve(args: argparse.Namespace) -> int:
    log = table.resolved(flags.LOG, vars(args))
    logs.configure(**log)
    raise_descriptor_limit()
    # A large scrape makes hundreds of thousands of objects without cycles; looking for some after every
    # 700 costs a fifth of it.
    gc.set_threshold(50_000, 20, 50)
    return_large_blocks()
    try:
        options = flags.web_options(args)
        telemetry = Telemetry(silent=options.disable_exporter_metrics)
        engine = Engine(lambda: flags.settings(args), os.environ, Path.home(), telemetry)
        discovery = table.resolved(flags.SD, vars(args))
        with contextlib.closing(engine), contextlib.ExitStack() as at_end:
            target = at_end.enter_context(sd_file.target_file(discovery)) if discovery["file"] else None
            shown = {
                **effective.flags(vars(options), flags.WEB),
                **effective.flags(log, flags.LOG),
                **effective.flags(discovery, flags.SD),
            }
            app = create_app(engine, options, engine.telemetry, shown)
            for cluster in engine.summary():
                _log.info("cluster", name=cluster.name, nodes=cluster.nodes, source=cluster.source)
            product = f"clio-exporter/{__version__}"

            def publish() -> None:
                if target is not None:
                    address = discovery["address"] or sd_file.advertised(*server.addresses[0])
                    target.publish(
                        address, lambda: engine.labels, tls=server.tls_enabled, path=options.telemetry_path
                    )

            server = WebServer(app, options, engine.reload, reload_error=ConfigError, product=product)
            telemetry.certificate = lambda: server.certificate_not_after
            server.serve_forever(publish)
    except (ConfigError, WebConfigError, ListenError, TransportUnavailableError) as error:
        return failed(error, 1)
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
