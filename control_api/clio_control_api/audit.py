"""The audit log: one JSON object a line for every action that was asked for, and for what came of it."""

from __future__ import annotations

import json
import os
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from clio_control_api.errors import Unavailable
from clio_web.logs import get_logger

_log = get_logger(__name__)


class AuditLog:
    """Appends to a file that only its owner can read. Thread-safe; the file may be rotated at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def write(self, event: str, **fields: Any) -> None:
        """Append one line; what is None is left out.

        Raises:
            Unavailable: it cannot be written; nothing that needs an audit may then be done.
        """
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entry = {"ts": now, "event": event, **{k: v for k, v in fields.items() if v is not None}}
        line = (json.dumps(entry, ensure_ascii=True) + "\n").encode()
        try:
            with self._lock:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                descriptor = os.open(self._path, flags, 0o600)
                try:
                    os.write(descriptor, line)
                finally:
                    os.close(descriptor)
        except OSError as error:
            _log.error("the audit log cannot be written", file=str(self._path), error=error.strerror)
            raise Unavailable(
                "the audit log cannot be written, so nothing is done; see the service's log"
            ) from None
