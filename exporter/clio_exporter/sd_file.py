"""`--sd.file`: this exporter as a target for Prometheus's file_sd, for as long as it serves.

The file's time of modification is its lease: its owner renews it, so a file that has not been renewed is left
from a process that was killed. On one host, and wherever locks are shared, a lock beside it tells the same at
once.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from clio_client.config.errors import ConfigError, quoted
from clio_exporter.scrape_command import write_atomically
from clio_web.logs import get_logger

OWNER: Final = "__meta_clio_exporter_owner"
"""Label of the target that tells whose file it is; Prometheus drops it after relabelling."""

RENEWALS: Final = 3
"""How often the lease is renewed in its time."""

_STOP_S: Final = 5.0
_HELD: Final = "Give every exporter a file of its own, or stop that one"
_DIRECTORY: Final = "Give a file in a directory that can be written"
_log = get_logger(__name__)


def target_file(settings: Mapping[str, Any]) -> TargetFile:
    """The file of these settings (`flags.SD`). Raises `ConfigError`."""
    path: Path = settings["file"]
    if path.suffix != ".json":
        raise ConfigError(f"--sd.file {path}", "does not end in .json", "Prometheus reads only such files")
    address = settings["address"]
    if address is not None and not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):[0-9]{1,5}", address):
        raise ConfigError("--sd.address", f"{quoted(address)} is not an address", "Write it as host:port")
    return TargetFile(path, settings["lease"])


def target_group(
    address: str, owner: str, labels: Mapping[str, str], *, tls: bool = False, path: str = "/metrics"
) -> list[dict[str, Any]]:
    """The file's content. What all series carry goes along as meta labels: as labels they would clash."""
    special = {"__scheme__": "https"} if tls else {}
    if path != "/metrics":
        special["__metrics_path__"] = path
    meta = {f"__meta_clio_label_{name}": value for name, value in labels.items()}
    return [{"targets": [address], "labels": {OWNER: owner, **special, **meta}}]


class TargetFile:
    """The file, owned from `take` to `close`; its thread renews the lease. Use it as a context manager."""

    def __init__(self, path: Path, lease_seconds: float) -> None:
        self.path = path
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._lease = lease_seconds
        self._lock_path = path.with_name(f".{path.name}.lock")
        self._lock: int | None = None
        self._text = ""
        self._make: Callable[[], str] = str
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> TargetFile:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def take(self) -> None:
        """Make the file ours; nothing is written yet.

        Raises:
            ConfigError: another exporter has it, or its directory cannot be used.
        """
        try:
            if not self._locked():
                raise self._error("belongs to an exporter that runs on this host", _HELD)
            self._check_lease()
        except OSError as error:
            self._unlock()
            raise self._error(f"cannot be used: {error.strerror}", _DIRECTORY) from error
        except ConfigError:
            self._unlock()
            raise

    def _check_lease(self) -> None:
        owner, age = self._found()
        if owner is None or age is None:
            return
        # Our own host's owner would have the lock; of another host's only the lease tells.
        here = owner.partition(":")[0] == socket.gethostname() and self._lock is not None
        if age < self._lease and not here:
            raise self._error(f"belongs to {owner}, which renewed it {max(0.0, age):.0f} s ago", _HELD)
        _log.warning("target file of an exporter that was killed", file=str(self.path), owner=owner)

    def publish(
        self,
        address: str,
        labels: Callable[[], Mapping[str, str]],
        *,
        tls: bool = False,
        path: str = "/metrics",
    ) -> None:
        """Write the target, and renew it from now on, with the labels that hold then.

        Raises:
            ConfigError: it cannot be written.
        """

        def text() -> str:
            group = target_group(address, self.owner, labels(), tls=tls, path=path)
            return json.dumps(group, indent=1) + "\n"

        self._make = text
        self._text = text()
        try:
            write_atomically(self.path, self._text)
        except OSError as error:
            raise self._error(f"cannot be written: {error.strerror}", _DIRECTORY) from error
        self._thread = threading.Thread(target=self._renew, name="clio-sd-file", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Remove the file if it is still ours. May be called more than once."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)
            self._thread = None
        with contextlib.suppress(OSError):
            if self._found()[0] == self.owner:
                self.path.unlink()
        self._unlock()

    def remove_left(self, host: str, pid: int | None) -> bool:
        """Remove what an exporter of this host left when it was killed: the file, and the lock.

        Where there are no locks, `pid` tells whose the file is. Returns whether there was any.
        """
        try:
            left = self._lock_path.exists()
            if not self.path.parent.is_dir() or not self._locked():
                return False
            try:
                owner, _ = self._found()
                whose = f"{host}:" if self._lock is not None else f"{host}:{pid}:"
                if owner is not None and owner.startswith(whose):
                    self.path.unlink(missing_ok=True)
                    left = True
            finally:
                self._unlock()
        except (OSError, ValueError, ConfigError):
            return False
        return left

    def _renew(self) -> None:
        problem = ""
        while not self._end.wait(self._lease / RENEWALS):
            try:
                owner, _ = self._found()
                text = self._make()
                if owner == self.owner and text == self._text:
                    os.utime(self.path)
                elif owner in (self.owner, None):
                    write_atomically(self.path, text)
                    self._text = text
                else:
                    _log.error("another exporter has taken the target file", file=str(self.path), owner=owner)
                    return
                problem = ""
            except OSError as error:
                if problem != str(error):
                    problem = str(error)
                    _log.warning("the target file cannot be renewed", file=str(self.path), error=problem)

    def _found(self) -> tuple[str | None, float | None]:
        """Whose the file is and how many seconds ago it was renewed; None where there is none.

        Raises:
            ConfigError: it is no file of ours.
        """
        try:
            text = self.path.read_bytes()
            age = time.time() - self.path.stat().st_mtime
        except FileNotFoundError:
            return None, None
        try:
            return str(json.loads(text)[0]["labels"][OWNER]), age
        except (ValueError, LookupError, TypeError, RecursionError):
            raise self._error("is there, and no exporter has written it", "Give another file") from None

    def _locked(self) -> bool:
        """Take the lock; False where it is taken. Where there are no locks the lease has to do."""
        while True:
            handle = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                return False
            except OSError:  # a file system without locks
                os.close(handle)
                self._lock_path.unlink(missing_ok=True)
                return True
            with contextlib.suppress(FileNotFoundError):
                if _same(handle, self._lock_path):
                    self._lock = handle
                    return True
            os.close(handle)  # its owner removed it meanwhile

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock_path.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def _error(self, problem: str, remedy: str) -> ConfigError:
        return ConfigError(f"--sd.file {self.path}", problem, remedy)


def _same(handle: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    return os.path.samestat(os.fstat(handle), path.stat())


def advertised(host: str, port: int) -> str:
    """Where Prometheus finds a listener: its own address, or this host's name where it is any."""
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - recognised, not bound
        host = socket.getfqdn()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
