"""Where a runtime is installed, which version it is, and how that version is started.

The commands and variables by version were measured on the wheels themselves (docs, compatibility):
`chimaera runtime start` up to 1.9.0, `clio_run runtime start` up to 2.1, `clio_run start` since 2.2.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from clio_lab.demo.errors import DemoError

DISTRIBUTION = "iowarp-core"
"""Name of the wheel that contains the runtime, on the Python package index."""

PIP_COMMAND = f"{sys.executable} -m pip install 'clio-exporter[demo]'"


def parse_version(text: str) -> tuple[int, ...]:
    """Return the numeric release of a version: `2.3.2` gives (2, 3, 2), `2.3.0rc1` gives (2, 3, 0).

    Raises ValueError when the text does not start with a number.
    """
    match = re.match(r"\d+(\.\d+)*", text)
    if match is None:
        raise ValueError(f"not a version: {text!r}")
    return tuple(int(part) for part in match.group().split("."))


@dataclass(frozen=True)
class RuntimeInstall:
    """One installed runtime: its version and the directory of its console scripts."""

    version: str
    bin_dir: Path

    @property
    def release(self) -> tuple[int, ...]:
        """The numeric release, for comparisons."""
        return parse_version(self.version)

    @property
    def program(self) -> Path:
        """The runtime's command line program (`clio_run`, before 1.9.7 `chimaera`)."""
        return self.bin_dir / ("clio_run" if self.release >= (1, 9, 7) else "chimaera")

    @property
    def bench(self) -> Path:
        """The context transfer engine's own benchmark, used as a source of traffic."""
        return self.bin_dir / ("clio_cte_bench" if self.release >= (1, 9, 7) else "wrp_cte_bench")

    @property
    def start_command(self) -> tuple[str, ...]:
        """The command line that starts a runtime in the foreground."""
        if self.release >= (2, 2):
            return (str(self.program), "start")
        return (str(self.program), "runtime", "start")

    @property
    def multi_node(self) -> bool:
        """Whether several runtimes can share this host: only 2.3 reads `host:port` in a hostfile."""
        return self.release >= (2, 3)

    @classmethod
    def current(cls) -> RuntimeInstall:
        """Find the wheel in the running interpreter's environment.

        Raises DemoError when it is not installed there.
        """
        try:
            version = importlib.metadata.version(DISTRIBUTION)
        except importlib.metadata.PackageNotFoundError:
            raise DemoError(
                f"the runtime wheel {DISTRIBUTION} is not installed for {sys.executable} "
                f"(wheels exist for Linux on x86-64, CPython 3.10 and newer): run {PIP_COMMAND}"
            ) from None
        return cls(version, Path(sys.executable).parent)._checked()

    @classmethod
    def from_venv(cls, path: Path) -> RuntimeInstall:
        """Find the wheel in the virtual environment at `path`; raises DemoError when it is not there."""
        for metadata in sorted(path.glob("lib/python3.*/site-packages/iowarp_core-*.dist-info")):
            version = metadata.name.removeprefix("iowarp_core-").removesuffix(".dist-info")
            return cls(version, path / "bin")._checked()
        raise DemoError(f"no {DISTRIBUTION} in {path}: run {path}/bin/pip install {DISTRIBUTION}")

    def _checked(self) -> RuntimeInstall:
        if not self.program.is_file():
            raise DemoError(
                f"{DISTRIBUTION} {self.version} is installed but {self.program} is missing: "
                f"reinstall it with pip install --force-reinstall {DISTRIBUTION}=={self.version}"
            )
        return self


def ensure_version(
    version: str,
    cache_dir: Path = Path(".cache/runtimes"),
    *,
    timeout: float = 600.0,
    progress: Callable[[str], None] | None = None,
) -> RuntimeInstall:
    """Return `iowarp-core==version` from a virtual environment under `cache_dir`, made on first use.

    A virtual environment cannot be built elsewhere and moved (its scripts hold its path), so a
    marker file says that one is complete, and a lock keeps concurrent callers apart; both locking
    and installing end within `timeout` seconds. Raises DemoError when the version cannot be installed.
    """
    cache_dir = cache_dir.absolute()
    cache_dir.mkdir(parents=True, exist_ok=True)
    home = cache_dir / f"{DISTRIBUTION}-{version}"
    complete = home / ".complete"
    try:
        with FileLock(cache_dir / f"{DISTRIBUTION}-{version}.lock", timeout=timeout):
            if not complete.is_file():
                if progress is not None:
                    progress(f"installing {DISTRIBUTION}=={version} into {home}")
                _install(home, version, timeout)
                complete.touch()
    except Timeout:
        raise DemoError(
            f"another process has been installing {DISTRIBUTION} {version} for {timeout:.0f} s: "
            f"wait for it, or remove {cache_dir}/{DISTRIBUTION}-{version}.lock"
        ) from None
    return RuntimeInstall.from_venv(home)


def _install(home: Path, version: str, timeout: float) -> None:
    venv.create(home, clear=True, with_pip=True, symlinks=True)
    command = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", f"{DISTRIBUTION}=={version}"]
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise DemoError(f"installing {DISTRIBUTION} {version} took over {timeout:.0f} s: try again") from None
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise DemoError(f"{DISTRIBUTION} {version} cannot be installed here: {reason}")
