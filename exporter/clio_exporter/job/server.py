"""The job's Prometheus: its configuration, while the job runs and when its data are opened again."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import psutil
import yaml

from clio_client.config.errors import ConfigError
from clio_exporter.job.processes import (
    HOST,
    Detached,
    EndedEarlyError,
    HeldError,
    free_port,
    running,
    signals_deferred,
)
from clio_exporter.job.state import DATA, Job, ProcessRecord
from clio_exporter.kit import rules

JOB: Final = "clio-exporter"
TRIES: Final = 3
"""A port that was free may be taken when it is bound: then another is tried."""
STOP_SECONDS: Final = 20.0

_MADE: Final = "Made by `clio-exporter job start`."


def find_program() -> str:
    """The path of `prometheus`. Raises `ConfigError` where there is none."""
    found = shutil.which("prometheus")
    if found is None:
        raise ConfigError(
            "prometheus",
            "is not on PATH",
            "Unpack it from https://prometheus.io/download/ (without root), and add it to PATH",
        )
    return found


def write_configuration(directory: Path, exporter: str, interval: float) -> Path:
    """Configuration and rules of a job that runs, into its directory; returns the path. Raises OSError."""
    (directory / "rules").mkdir(exist_ok=True)
    options = rules.Options(exporter_job=JOB)
    for name, text in rules.render(options, _MADE).items():
        (directory / "rules" / name).write_text(text, encoding="utf-8")
    every = f"{max(1, round(1000 * interval))}ms"
    document: dict[str, Any] = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": "5s"},
        "rule_files": ["rules/*.yml"],
        "scrape_configs": [{"job_name": JOB, "static_configs": [{"targets": [exporter]}]}],
    }
    path = directory / "prometheus.yml"
    path.write_text(f"# {_MADE}\n" + yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


class Run(Protocol):
    """How a program is started."""

    def __call__(
        self, name: str, command: Sequence[str], log: Path, port: int, *, alone: bool = False
    ) -> Detached:
        """Start it as `Detached` does."""
        ...


def start(
    program: str, directory: Path, configuration: Path, deadline: float, run: Run = Detached
) -> Detached:
    """Prometheus on the data of a directory, started by `run`, ready; it goes on when we end.

    Raises:
        OSError: of `run`.
        ConfigError: it does not serve in time, or cannot.
    """
    log = directory / "prometheus.log"
    for left in reversed(range(TRIES)):
        port = free_port()
        command = [
            program,
            f"--config.file={configuration}",
            f"--storage.tsdb.path={directory / DATA}",
            # Saved jobs are opened years later: nothing may be too old.
            "--storage.tsdb.retention.time=100y",
            f"--web.listen-address={HOST}:{port}",
        ]
        server = None
        try:
            with signals_deferred():
                # Its own lock is off in Debian's build; two would spoil the data.
                server = run("prometheus", command, log, port, alone=True)
            server.wait_ready(deadline)
        except HeldError:
            raise _held(directory) from None
        except EndedEarlyError as error:
            if "lock DB directory" in str(error):
                raise _held(directory) from None
            if left == 0 or "address already in use" not in str(error):
                raise ConfigError(str(log), f"says: {error}", "Mend that, and start again") from None
        except BaseException:
            if server is not None:
                server.end(STOP_SECONDS)
            raise
        else:
            return server
    raise AssertionError("unreachable")


def _held(directory: Path) -> ConfigError:
    """That another Prometheus has the data, and which, where it runs on this host under a name we can see."""
    data = f"--storage.tsdb.path={(directory / DATA)}"
    found = [p.pid for p in psutil.process_iter(["cmdline"]) if data in (p.info["cmdline"] or ())]
    return ConfigError(
        str(directory),
        f"is open in another Prometheus{f' (pid {found[0]})' if found else ''}",
        "End that one (`clio-exporter job open` or `top`), or ask it with --prometheus URL",
    )


@contextlib.contextmanager
def opened(directory: Path, seconds: float) -> Iterator[Detached]:
    """A Prometheus on saved data, which scrapes nothing and evaluates no rules; ended at the end.

    Raises:
        ConfigError: there are no data, or Prometheus cannot be had or does not serve.
    """
    program = find_program()
    if not (directory / DATA).is_dir():
        raise ConfigError(str(directory), "has no data of Prometheus", "Give the directory of a job")
    configuration = directory / "open.yml"
    try:
        # No rules: they would be evaluated now, on data of then.
        configuration.write_text("# Made by `clio-exporter job open`.\nglobal: {}\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            str(directory),
            f"cannot be written: {error.strerror}",
            "Prometheus writes beside its data: copy the directory to a place of your own",
        ) from error
    server = start(program, directory, configuration, time.monotonic() + seconds)
    try:
        yield server
    finally:
        server.end(STOP_SECONDS)


@contextlib.contextmanager
def asked(directory: Path, job: Job, seconds: float) -> Iterator[str]:
    """The address of a Prometheus that has the job's data: its own while it runs, else one for now.

    Raises:
        ConfigError: as `opened`.
    """
    if (record := running_prometheus(job)) is not None:
        yield f"http://{HOST}:{record.port}"
        return
    with opened(directory, seconds) as server:
        yield f"http://{HOST}:{server.port}"


def running_prometheus(job: Job) -> ProcessRecord | None:
    """The job's own Prometheus, while it runs on this host."""
    record = job.processes.get("prometheus")
    return record if record is not None and running(record) is not None else None
