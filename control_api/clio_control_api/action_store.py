"""The actions under way, one a node, and those of late. Thread-safe; bounded in number and age."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from clio_control_api.action import Action
from clio_control_api.node_script import NodePlan

KEPT: Final = 1024
"""How many actions that are done are remembered."""

KEPT_S: Final = 24 * 3600.0
"""How long."""

_Key = tuple[str, int]


class ActionStore:
    """Remembers actions by id and by node."""

    def __init__(self, max_running: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_running = max_running
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[_Key, Action] = {}
        self._done: dict[str, tuple[float, Action]] = {}

    def begin(self, action: Action) -> Action | None:
        """Take the node for an action; returns the one that has it already.

        Raises:
            OverflowError: too many are under way.
        """
        with self._lock:
            busy = self._running.get(_key(action.plan))
            if busy is None:
                if len(self._running) >= self._max_running:
                    raise OverflowError(f"{self._max_running} actions are under way already")
                self._running[_key(action.plan)] = action
            return busy

    def end(self, action: Action, *, remember: bool = True) -> None:
        """Give the node free."""
        with self._lock:
            if self._running.get(_key(action.plan)) is action:
                del self._running[_key(action.plan)]
            if remember:
                self._done[action.id] = (self._clock(), action)
            self._drop_old()

    def find(self, action_id: str) -> Action | None:
        """An action under way or done of late."""
        with self._lock:
            self._drop_old()
            for action in self._running.values():
                if action.id == action_id:
                    return action
            return self._done[action_id][1] if action_id in self._done else None

    def busy_with(self, plan: NodePlan) -> Action | None:
        """What is under way on a node."""
        with self._lock:
            return self._running.get(_key(plan))

    def _drop_old(self) -> None:
        """Oldest first: they ended in the order in which they are kept."""
        oldest = self._clock() - KEPT_S
        while self._done:
            action_id, (ended, _action) = next(iter(self._done.items()))
            if len(self._done) <= KEPT and ended >= oldest:
                return
            del self._done[action_id]


def _key(plan: NodePlan) -> _Key:
    return plan.member.cluster, plan.member.node_id
