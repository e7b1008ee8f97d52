"""Operations on disk: one JSON file each, replaced as a whole, so that none is half written or forgotten."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Final

from clio_client.config.errors import ConfigError
from clio_client.config.files import read_text
from clio_control_api.errors import Unavailable
from clio_control_api.operations.model import Operation, restored, stored
from clio_web.logs import get_logger

MAX_KEPT: Final = 200
"""Operations that have ended; older ones go, the audit log has them still."""

_MAX_FILE: Final = 64 * 1024 * 1024
_NAME = re.compile(r"[0-9a-f]{16}\.json", re.ASCII)
_log = get_logger(__name__)


class OperationStore:
    """A directory of operations. Not thread-safe: its one owner has a lock."""

    def __init__(self, directory: Path) -> None:
        """The directory is made at the first write."""
        self._directory = directory

    def load(self) -> list[Operation]:
        """All there are, oldest first. A file that cannot be read is logged and stays where it is."""
        found = []
        for path in sorted(self._directory.glob("*.json")) if self._directory.is_dir() else ():
            if not _NAME.fullmatch(path.name):
                continue
            try:
                operation = restored(json.loads(read_text(path, "operation", _MAX_FILE)))
                if f"{operation.id}.json" != path.name:
                    raise ValueError("it is named after another one")
            except (ConfigError, ValueError, RecursionError, OSError) as error:
                _log.error(
                    "an operation cannot be read; look at what it did", file=str(path), error=str(error)
                )
                continue
            found.append(operation)
        return sorted(found, key=lambda operation: operation.began)

    def save(self, operation: Operation) -> None:
        """Write one down, so that it outlives this process and the machine.

        Raises:
            Unavailable: it cannot be written; nothing may then be done.
        """
        path = self._path(operation.id)
        draft = path.with_suffix(".new")
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(draft, flags, 0o600), "w", encoding="utf-8") as file:
                json.dump(stored(operation), file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            _log.error("an operation cannot be written down", file=str(path), error=error.strerror)
            raise Unavailable(
                f"the operation cannot be written to {path}: {error.strerror}; nothing more is done"
            ) from None

    def remove(self, operation: Operation) -> None:
        """Forget one that has ended."""
        self._path(operation.id).unlink(missing_ok=True)

    def _path(self, operation_id: str) -> Path:
        return self._directory / f"{operation_id}.json"
