"""Where a scrape's time goes: an exporter of simulated nodes under py-spy (`make profile`).

Writes a flame graph, to look at in a browser, and a file for speedscope.app, of a run each. The exporter is a
child of py-spy, so that neither needs to be root. Samples are of threads that run; with `--gil` of those that
hold the interpreter's lock.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from clio_lab.simulator.process import SimulatorProcess
from tests.bench.scale import START_SECONDS, exporter_command, scrape, wait_ready
from tests.paths import ROOT

FORMATS = {"flamegraph": "svg", "speedscope": "speedscope.json"}
END_SECONDS = 60.0


@contextmanager
def profiled(
    command: Sequence[str], target: Path, kind: str, rate: int, *, gil: bool
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command under py-spy; at the end it is told to stop, and ``target`` is there."""
    spy = Path(sys.executable).with_name("py-spy")
    if not spy.exists():
        raise SystemExit("profile: py-spy is not installed; `make setup` installs it")
    options = ["--format", kind, "--output", str(target), "--rate", str(rate), "--threads"]
    options += ["--gil"] if gil else []
    with subprocess.Popen(
        [str(spy), "record", *options, "--", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            yield process
        finally:
            # As Ctrl-C does: it ends the exporter and writes. One to the exporter may be lost to ptrace.
            children = psutil.Process(process.pid).children()
            process.send_signal(signal.SIGINT)
            try:
                said, _ = process.communicate(timeout=END_SECONDS)
            finally:
                process.kill()
                for child in children:
                    with suppress(psutil.NoSuchProcess):
                        child.kill()
    if process.returncode or not target.exists():
        raise SystemExit(f"profile: py-spy failed:\n{said.decode(errors='replace')}")


def record(target: Path, kind: str, hostfile: Path, args: argparse.Namespace) -> None:
    """Scrape an exporter under py-spy."""
    command = exporter_command(hostfile, args.port)
    with profiled(command, target, kind, args.rate, gil=args.gil) as process:
        url = f"http://127.0.0.1:{args.port}/-/ready"
        wait_ready(url, process)
        for _ in range(args.scrapes):
            scrape(args.port)


def main() -> int:
    """Make the files and say where they are."""
    parser = argparse.ArgumentParser(prog="make profile PROFILE_ARGS=...", description=__doc__)
    parser.add_argument("--nodes", type=int, default=256, help="simulated nodes (256)")
    parser.add_argument("--scrapes", type=int, default=20, help="scrapes, one after the other (20)")
    parser.add_argument("--rate", type=int, default=200, help="samples a second (200)")
    parser.add_argument("--gil", action="store_true", help="only threads that hold the interpreter's lock")
    parser.add_argument("--format", choices=[*FORMATS, "both"], default="both", help="which files (both)")
    parser.add_argument(
        "--output", type=Path, default=ROOT / ".profile", help="folder to write to (.profile)"
    )
    parser.add_argument("--base-port", type=int, default=30413, help="port of the simulated runtimes")
    parser.add_argument("--port", type=int, default=29777, help="port of the exporter")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        hostfile = Path(directory) / "hosts"
        options = [
            "--nodes",
            str(args.nodes),
            "--base-port",
            str(args.base_port),
            "--hostfile",
            str(hostfile),
        ]
        with SimulatorProcess(*options, timeout=START_SECONDS):
            for kind, ending in FORMATS.items():
                if args.format in (kind, "both"):
                    target = args.output / f"scrape-{args.nodes}.{ending}"
                    target.unlink(missing_ok=True)
                    print(f"profile: {args.scrapes} scrapes of {args.nodes} simulated nodes", flush=True)
                    record(target, kind, hostfile, args)
                    where = "a browser" if kind == "flamegraph" else "https://www.speedscope.app"
                    print(f"profile: {target} ({where})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
