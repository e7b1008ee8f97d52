"""The runtimes' own configuration files, read again when they changed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clio_client.background import BackgroundRead
from clio_client.config import in_common
from clio_client.config.errors import ConfigError
from clio_client.config.known_keys import publishable
from clio_client.config.runtime_conf import RuntimeConfig, find_runtime_config, flatten, load_runtime_config
from clio_client.config.settings import ClusterSettings
from clio_client.config.watched_file import WatchedFile
from clio_client.logs import get_logger
from clio_client.membership import Member

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A runtime's configuration file as last read.

    Attributes:
        member: the node it belongs to; None when all nodes of the cluster share it.
        mtime: Unix time of its last change; None when it cannot be read.
        config: None when it cannot be used; ``error`` then says why.
        entries: its values by path, as far as they may be shown (`known_keys`).
        digest: of what it ought to have in common with other nodes' files (`in_common`); "" without a config.
    """

    member: Member | None
    path: Path
    mtime: float | None
    config: RuntimeConfig | None
    error: ConfigError | None = None
    entries: tuple[tuple[str, str], ...] = ()
    digest: str = ""


class RuntimeConfigFiles:
    """Finds and reads the configuration files of one cluster. Thread-safe."""

    def __init__(self, settings: ClusterSettings, env: Mapping[str, str], home: Path) -> None:
        self._settings = settings
        self._env = env
        self._home = home
        self._lock = threading.Lock()
        self._members: tuple[Member, ...] = ()
        self._background = BackgroundRead(lambda: self.read(self._members))
        self._files: dict[Path, WatchedFile[ConfigFile]] = {}

    async def refresh(self, members: Sequence[Member], seconds: float) -> tuple[ConfigFile, ...]:
        """`read` off the event loop; () when it takes longer than ``seconds``."""
        try:
            return await self.read_within(members, seconds)
        except TimeoutError:
            _log.warning("reading runtime configuration files takes too long", seconds=seconds)
            return ()

    async def read_within(self, members: Sequence[Member], seconds: float) -> tuple[ConfigFile, ...]:
        """`read` off the event loop. Raises `TimeoutError` when it takes longer than ``seconds``."""
        self._members = tuple(members)
        return await self._background.result(seconds)

    def read(self, members: Sequence[Member]) -> tuple[ConfigFile, ...]:
        """One file a member where the settings name them so, else the cluster's; () when there is none.

        What cannot be found or read is an error of its own file alone.
        """
        with self._lock:
            before, self._files = self._files, {}
            return tuple(
                self._read(member, where, before) if isinstance(where, Path) else where
                for member, where in self._locations(members)
            )

    def _locations(self, members: Sequence[Member]) -> Iterator[tuple[Member | None, Path | ConfigFile]]:
        """Whose file is where, or why that cannot be told."""
        template = self._settings.runtime_config
        if template is None:
            path = self._own_path()
            if path is not None:
                yield None, path
        elif not self._settings.runtime_config_per_node:
            yield None, Path(template)
        else:
            for member in members:
                try:
                    yield member, self._settings.runtime_config_for(member.node_id, member.hostname) or Path()
                except ConfigError as error:
                    yield member, ConfigFile(member, Path(template), None, None, error)

    def _own_path(self) -> Path | None:
        if not self._settings.environment:
            return None
        try:
            return find_runtime_config(self._env, self._home)
        except ConfigError as error:
            return Path(error.path)

    def _read(
        self, member: Member | None, path: Path, before: Mapping[Path, WatchedFile[ConfigFile]]
    ) -> ConfigFile:
        file = self._files.setdefault(path, before.get(path) or WatchedFile(path, self._load))
        return replace(file.value(), member=member)

    def _load(self, path: Path) -> ConfigFile:
        mtime = None
        with contextlib.suppress(OSError, ValueError):
            mtime = path.stat().st_mtime
        try:
            config = load_runtime_config(path, self._env, self._home)
        except ConfigError as error:
            return ConfigFile(None, path, mtime, None, error)
        entries = tuple(flatten(publishable(config.document)))
        digest = in_common.digest(entries, self._settings.runtime_config_own)
        return ConfigFile(None, path, mtime, config, entries=entries, digest=digest)
