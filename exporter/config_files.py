"""The runtimes' configuration files, read again when they changed."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from exporter.background import BackgroundRead
from exporter.config.errors import ConfigError
from exporter.config.masking import mask_secrets
from exporter.config.runtime_conf import find_runtime_config, flatten, load_runtime_config
from exporter.config.settings import ClusterSettings
from exporter.logs import get_logger
from exporter.membership import Member
from exporter.snapshot import ConfigFile

_log = get_logger(__name__)

_Signature = tuple[int, int, int]


class ConfigFiles:
    """Finds and reads the configuration files of one cluster. Thread-safe."""

    def __init__(self, settings: ClusterSettings, env: Mapping[str, str], home: Path, labels: str) -> None:
        self._settings = settings
        self._env = env
        self._home = home
        self._labels = labels
        self._lock = threading.Lock()
        self._members: tuple[Member, ...] = ()
        self._background = BackgroundRead(lambda: self.read(self._members))
        self._cache: dict[Path, tuple[_Signature, ConfigFile]] = {}

    async def refresh(self, members: Sequence[Member], seconds: float) -> tuple[ConfigFile, ...]:
        """`read` off the event loop; () when it takes longer than ``seconds``."""
        self._members = tuple(members)
        try:
            return await self._background.result(seconds)
        except TimeoutError:
            _log.warning("reading runtime configuration files takes too long", seconds=seconds)
            return ()

    def read(self, members: Sequence[Member]) -> tuple[ConfigFile, ...]:
        """One file a member where the settings name them so, else the cluster's; () when there is none."""
        if self._settings.runtime_config_per_node:
            files = [
                (member.labels, path)
                for member in members
                if (path := self._settings.runtime_config_for(member.node_id, member.hostname)) is not None
            ]
        else:
            path = self._shared_path()
            files = [] if path is None else [(self._labels, path)]
        with self._lock:
            self._cache = {
                path: entry for path, entry in self._cache.items() if path in {p for _, p in files}
            }
            return tuple(self._read(labels, path) for labels, path in files)

    def _shared_path(self) -> Path | None:
        if self._settings.runtime_config is not None:
            return Path(self._settings.runtime_config)
        if not self._settings.environment:
            return None
        try:
            return find_runtime_config(self._env, self._home)
        except ConfigError as error:
            return Path(error.path)

    def _read(self, labels: str, path: Path) -> ConfigFile:
        try:
            stat = path.stat()
        except OSError as error:
            missing = ConfigError(
                path, f"cannot be read: {os.strerror(error.errno or 0)}", "Correct runtime_config"
            )
            return ConfigFile(labels, path, None, None, missing)
        signature = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        cached = self._cache.get(path)
        if cached is None or cached[0] != signature:
            cached = self._cache[path] = (signature, self._load(labels, path, stat.st_mtime))
        return replace(cached[1], labels=labels)

    def _load(self, labels: str, path: Path, mtime: float) -> ConfigFile:
        try:
            config = load_runtime_config(path, self._env, self._home)
        except ConfigError as error:
            return ConfigFile(labels, path, mtime, None, error)
        entries = tuple(flatten(mask_secrets(config.document)))
        return ConfigFile(labels, path, mtime, config, entries=entries)
