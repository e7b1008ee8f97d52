"""Targets of `/probe` that are members of no cluster."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from clio_client.config.settings import RuntimeSettings
from clio_client.membership import Member
from clio_client.transport.interface import NodeAddress

NO_NUMBER: Final = -1
"""Node id of a target that is in no cluster: nobody has numbered it."""


class ForeignTargets:
    """Targets `/probe` was asked for that are no members, where any may be; the last used are remembered."""

    def __init__(self, runtime: RuntimeSettings, limit: int) -> None:
        self._runtime = runtime
        self._limit = limit
        self._lock = threading.Lock()
        self._members: OrderedDict[tuple[str, int], Member] = OrderedDict()

    def find(self, host: str, port: int) -> Member:
        """The member that stands for this target; it has no number."""
        with self._lock:
            member = self._members.get((host, port))
            if member is None:
                address = NodeAddress(host, port, NO_NUMBER, reply_address=self._runtime.reply_address)
                member = Member("", NO_NUMBER, host, address)
                self._members[host, port] = member
            self._members.move_to_end((host, port))
            if len(self._members) > self._limit:
                self._members.popitem(last=False)
            return member

    def members(self) -> frozenset[Member]:
        """The targets remembered."""
        with self._lock:
            return frozenset(self._members.values())
