"""What alerts have caused, in a file: limits hold over restarts of the service too."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

from clio_client.config.errors import ConfigError
from clio_client.config.files import exists, read_text
from clio_control_api.alertmanager.decide import Past
from clio_control_api.errors import Unavailable
from clio_control_api.shapes import checked
from clio_web.logs import get_logger

Node = tuple[str, int]
"""Cluster and node id."""

_KEPT: Final = 64
_MAX_FILE: Final = 16 * 1024 * 1024
_log = get_logger(__name__)


class History:
    """The newest actions by node. Not thread-safe: its one owner has a lock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._nodes: dict[Node, tuple[Past, ...]] | None = None

    def of(self, node: Node) -> tuple[Past, ...]:
        """Oldest first. Raises `Unavailable` where the file cannot be used."""
        return self._loaded().get(node, ())

    def under_way(self, cluster: str) -> set[int]:
        """Nodes of a cluster that were really acted on and have not been seen up since."""
        return {
            number
            for (name, number), past in self._loaded().items()
            if name == cluster and past and not past[-1].dry and not past[-1].seen_up
        }

    def put(self, changed: Mapping[Node, tuple[Past, ...]]) -> None:
        """Write these nodes' down; raises `Unavailable`, and nothing may then be done."""
        nodes = {**self._loaded(), **{node: past[-_KEPT:] for node, past in changed.items()}}
        document = [[cluster, number, [asdict(p) for p in past]] for (cluster, number), past in nodes.items()]
        draft = self._path.with_suffix(".new")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(draft, flags, 0o600), "w", encoding="utf-8") as file:
                json.dump(document, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be written: {error.strerror}; nothing is done") from None
        self._nodes = nodes

    def _loaded(self) -> dict[Node, tuple[Past, ...]]:
        if self._nodes is None:
            try:
                text = read_text(self._path, "history", _MAX_FILE) if exists(self._path) else "[]"
                self._nodes = {
                    (str(cluster), int(number)): tuple(checked(Past(**past)) for past in pasts)
                    for cluster, number, pasts in json.loads(text)
                }
            except (ConfigError, ValueError, TypeError, OverflowError, RecursionError) as error:
                _log.error("what alerts have caused cannot be read", file=str(self._path), error=str(error))
                raise Unavailable(
                    f"{self._path} cannot be read, so nobody knows what was done; remove it to begin anew"
                ) from None
        return self._nodes
