"""Asking every node for what its ring has that we do not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from clio_client import RuntimeIdentity, SystemSample, questions
from clio_client.client import RuntimeClient
from clio_client.clusters import configured_clusters, refresh_members
from clio_client.config import table
from clio_client.config.table import Setting
from clio_client.errors import RuntimeClientError
from clio_client.membership import Member
from clio_client.transport.choice import check_transport, make_transport
from clio_client.transport.interface import Transport
from clio_exporter.poller import RINGS_AT_ONCE
from clio_exporter.settings import Settings

TIMEOUT: Final = Setting(
    "timeout", table.duration(0.5, 300), 6.0, "time that a node has to answer", flag="--timeout"
)
"""Option of the commands that read rings."""
_GRACE_S: Final = 5.0
_WAVES: Final = 60
"""How many times as long as one node all may take, where they are many."""


@dataclass(slots=True)
class _Place:
    """How far a node's ring is known."""

    identity: RuntimeIdentity | None = None
    since: int = 0


@dataclass(frozen=True, slots=True)
class NewSamples:
    """What a node had that was not known, or why it told nothing."""

    member: Member
    samples: tuple[SystemSample, ...] = ()
    error: RuntimeClientError | None = None


@dataclass
class Rings:
    """The rings of all nodes. Use `close`."""

    settings: Settings
    env: Mapping[str, str]
    home: Path
    _places: dict[Member, _Place] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises `ConfigError` and `TransportUnavailableError`."""
        check_transport(self.settings.runtime)
        self._clusters = configured_clusters(self.settings, self.env, self.home)
        self._client = RuntimeClient(lambda: make_transport(self.settings.runtime, "record"))

    def new(self, seconds: float) -> Sequence[NewSamples]:
        """What is new on every node, ``seconds`` at most each."""
        return self._client.call(lambda transport: self._ask(transport, seconds), _WAVES * seconds + _GRACE_S)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    async def _ask(self, transport: Transport, seconds: float) -> list[NewSamples]:
        loop = asyncio.get_running_loop()
        groups = await refresh_members(self._clusters, transport, loop.time() + seconds)
        slots = asyncio.Semaphore(RINGS_AT_ONCE)

        async def one(member: Member) -> NewSamples:
            async with slots:
                return await self._one(transport, member, loop.time() + seconds)

        return list(await asyncio.gather(*(one(member) for members in groups for member in members)))

    async def _one(self, transport: Transport, member: Member, deadline: float) -> NewSamples:
        place = self._places.setdefault(member, _Place())
        try:
            session = await transport.session(member.address, deadline)
            if session.identity != place.identity:
                place.identity, place.since = session.identity, 0  # another run counts from 0
            found = await questions.samples(transport, member.address, deadline, since=place.since)
        except RuntimeClientError as error:
            return NewSamples(member, error=error)
        if found and found[-1].event_id is not None:
            place.since = found[-1].event_id + 1
        return NewSamples(member, found)
