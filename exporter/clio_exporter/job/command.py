"""`clio-exporter job`: start, stop, annotate, open and report."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from clio_client.config.errors import ConfigError
from clio_client.config.fields import Field
from clio_exporter.job import grafana, lifecycle, marks, nodes, server, state
from clio_exporter.job.marks import Mark
from clio_exporter.job.processes import HOST, Detached
from clio_exporter.job.reporting import of_job, of_prometheus
from clio_exporter.job.state import Job
from clio_exporter.kit.command import url
from clio_exporter.moments import read_moment
from clio_exporter.report import render, source
from clio_exporter.report.questions import Range
from clio_exporter.scrape_command import write_atomically

FORMATS = {"text": render.text, "markdown": render.markdown, "html": render.html}
_TIMEOUT = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `job`."""
    parser.description = (
        "Monitor one job from inside it: an exporter and a Prometheus of its own, on loopback, without root. "
        "Their data stay in the job's directory; a report tells what happened."
    )
    below = parser.add_subparsers(title="what to do", metavar="WHAT", required=True)
    _add_start(below.add_parser("start", help="begin, in the job script before the work"))
    stop = below.add_parser("stop", help="end it, keep the data and print the report")
    _directory(stop)
    stop.add_argument("--no-report", action="store_true", help="print no report")
    stop.set_defaults(do=_stop)
    _add_report(
        below.add_parser("report", help="say what happened, from the data of a job or any Prometheus")
    )
    annotate = below.add_parser("annotate", help="mark this moment")
    _directory(annotate)
    annotate.add_argument("text", metavar="TEXT", help="what happens now")
    annotate.set_defaults(do=_annotate)
    opened = below.add_parser(
        "open", help="start Prometheus, and Grafana where there is one, on the data of jobs, until Ctrl-C"
    )
    opened.add_argument("directories", nargs="+", type=Path, metavar="DIR", help="what `job start` has made")
    opened.add_argument("--no-grafana", action="store_true", help="start Prometheus alone")
    _timeout(opened)
    opened.set_defaults(do=_open)


def run(args: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    do: Callable[[argparse.Namespace], int] = args.do
    try:
        return do(args)
    except ConfigError as error:
        sys.stderr.write(f"clio-exporter job: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("clio-exporter job: interrupted\n")
        return 130


def _add_start(parser: argparse.ArgumentParser) -> None:
    _directory(parser)
    parser.add_argument(
        "--hostfile",
        type=Path,
        metavar="FILE",
        help="the runtime's own list of nodes (default: the hosts that Slurm or Flux says)",
    )
    parser.add_argument(
        "--id", metavar="TEXT", help="the job's id (default: Slurm's or Flux's, else the time)"
    )
    parser.add_argument("--name", metavar="TEXT", help="its name (default: Slurm's)")
    parser.add_argument(
        "--interval",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="time between two scrapes (default 1)",
    )
    _timeout(parser)
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="-- ARGUMENT",
        help="of the exporter, after two dashes: -- --port 9500 --config.file exporter.yaml",
    )
    parser.set_defaults(do=_start)


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "directory", nargs="?", type=Path, metavar="DIR", help="what `job start` has made (default as there)"
    )
    parser.add_argument(
        "--prometheus", type=url, metavar="URL", help="ask this Prometheus, for the time --from to --to"
    )
    parser.add_argument(
        "--from", dest="begin", type=_moment, metavar="TIME", help="as 2026-11-21T14:00:00 or in Unix seconds"
    )
    parser.add_argument("--to", dest="end", type=_moment, metavar="TIME", help="the same (default now)")
    parser.add_argument(
        "--match", default="", metavar="MATCHERS", help='only series with such labels, as job_id="17"'
    )
    parser.add_argument(
        "--interval", type=_seconds, metavar="SECONDS", help="time between two scrapes of that Prometheus"
    )
    parser.add_argument(
        "--format", choices=list(FORMATS), default="text", help="how it is written (default %(default)s)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write here (default standard output)")
    _timeout(parser)
    parser.set_defaults(do=_report)


def _directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--directory",
        type=Path,
        metavar="DIR",
        help="the job's (default clio-job-ID here, with the id that Slurm or Flux says)",
    )


def _timeout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=_TIMEOUT,
        metavar="SECONDS",
        help="time until all has to serve (default 60)",
    )


def _seconds(text: str) -> float:
    try:
        return Field.given(text, "time").seconds(0.1, 3600)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _moment(text: str) -> float:
    try:
        return read_moment(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 2026-11-21T14:00:00") from None


def _start(args: argparse.Namespace) -> int:
    labels = lifecycle.identity(os.environ, _user(), args.id, args.name)
    labels.setdefault("job_id", time.strftime("%Y%m%d-%H%M%S"))
    directory = args.directory or Path(f"clio-job-{_plain(labels['job_id'])}")
    hosts = [] if args.hostfile is not None else nodes.find_nodes(os.environ)
    job = lifecycle.start(
        directory, labels, args.hostfile, hosts, args.interval, args.timeout, args.arguments
    )
    print(f"{job.title}: {job.nodes} nodes, a scrape each {job.interval:g} s, data in {directory}")
    for name, record in job.processes.items():
        print(f"  {name} http://{HOST}:{record.port} (pid {record.pid})")
    return 0


def _stop(args: argparse.Namespace) -> int:
    directory = _chosen(args)
    if (done := lifecycle.clear(directory)) is not None:
        print(f"{directory}: its start was interrupted; cleared what it left")
        for each in done:
            print(f"  {each}")
        return 0
    job, well = lifecycle.stop(directory)
    if not well:
        sys.stderr.write("clio-exporter job: it had to be killed; the last seconds may be missing\n")
    print(f"{job.title}: stopped, data in {directory}", flush=True)
    if not args.no_report:
        report = of_job(directory, _TIMEOUT)
        sys.stdout.write("\n" + render.text(report))
        sys.stdout.flush()
        _write(directory / "report.html", render.html(report))
    return 0


def _report(args: argparse.Namespace) -> int:
    if args.prometheus is None:
        if args.begin or args.end or args.interval or args.match:
            raise ConfigError(
                "--prometheus",
                "is missing",
                "Give it with --from, --to, --match and --interval, or a DIR alone",
            )
        report = of_job(_chosen(args), args.timeout)
    else:
        if args.directory is not None or args.begin is None:
            raise ConfigError("--prometheus", "needs --from, and no DIR", "Say which time is meant")
        end = time.time() if args.end is None else args.end
        if end <= args.begin:
            raise ConfigError("--to", "is not after --from", "Give a later time")
        asked = Range(args.begin, end, args.interval, args.match)
        report = of_prometheus(args.prometheus, asked)
    made = FORMATS[args.format](report)
    if args.output is None:
        sys.stdout.write(made)
    else:
        _write(args.output, made)
    return 0


def _write(path: Path, made: str) -> None:
    try:
        write_atomically(path, made)
    except OSError as error:
        raise ConfigError(
            str(path), f"cannot be written: {error.strerror}", "Give another --output"
        ) from error


def _annotate(args: argparse.Namespace) -> int:
    directory = _chosen(args)
    job = state.load(directory)
    marks.add(directory, Mark(time.time(), args.text))
    try:
        told = marks.show(directory, job, socket.gethostname())
    except OSError as error:
        raise ConfigError(
            str(directory), f"cannot be written: {error.strerror}", "Give the job's --directory"
        ) from error
    if not told:
        sys.stderr.write(
            "clio-exporter job: kept for the report; dashboards do not show it, as the job's Prometheus does "
            f"not run on this host ({job.host})\n"
        )
    return 0


def _open(args: argparse.Namespace) -> int:
    jobs = [(directory, state.load(directory)) for directory in args.directories]
    with _until_signal(), ExitStack() as at_end:
        servers = []
        for directory, job in jobs:
            opened = at_end.enter_context(server.opened(directory, args.timeout))
            servers.append(opened)
            begin = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(job.began))
            print(f"{job.title}, from {begin}: http://{HOST}:{opened.port}", flush=True)
        if not args.no_grafana:
            _open_grafana(jobs, servers, args.timeout, at_end)
        print("Ctrl-C ends it.", flush=True)
        _watch(servers)
    return 0


def _watch(servers: Sequence[Detached]) -> None:
    """Wait for a signal, which raises. Raises ConfigError when a Prometheus has ended."""
    while True:
        for opened in servers:
            if opened.wait(0) is not None:
                raise ConfigError(str(opened.log), "tells why Prometheus has ended", "Open it again")
        time.sleep(0.5)


def _open_grafana(
    jobs: Sequence[tuple[Path, Job]], servers: Sequence[Detached], seconds: float, at_end: ExitStack
) -> None:
    """Grafana on the opened jobs; where it cannot be had, say why."""
    sources = []
    for (_, job), opened in zip(jobs, servers, strict=True):
        url = f"http://{HOST}:{opened.port}"
        # Of one that was killed, the data tell when.
        end = job.ended or source.newest(url) or job.began
        sources.append(grafana.Source(job.title, url, job.interval, job.began, end))
    try:
        started = at_end.enter_context(grafana.opened(sources, seconds))
    except grafana.NoGrafanaError as error:
        print(f"Without Grafana: {error}", flush=True)
        return
    for number, each in enumerate(sources):
        print(f"{each.title} in Grafana: {grafana.link(started.port, number, each)}", flush=True)


@contextlib.contextmanager
def _until_signal() -> Iterator[None]:
    """Leave the block at the first SIGINT or SIGTERM; they wait until what is being started can be ended."""
    told = False

    def handle(*_: object) -> None:
        nonlocal told
        if not told:
            told = True
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        if not told:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _chosen(args: argparse.Namespace, env: Mapping[str, str] = os.environ) -> Path:
    """The directory that is meant."""
    if args.directory is not None:
        found: Path = args.directory
        return found
    job_id = nodes.find_job(env)
    if job_id is None:
        raise ConfigError("--directory", "is missing, and this is no job of Slurm or Flux", "Give the job's")
    return Path(f"clio-job-{_plain(job_id)}")


def _plain(job_id: str) -> str:
    """An id as part of a file's name; Flux's begin with a letter that has an ASCII form."""
    job_id = job_id.replace("ƒ", "f")
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in job_id)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an id without a name
        return str(os.getuid())
