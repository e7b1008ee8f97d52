"""Runs operations: one a cluster at a time, each in a thread of its own, written down before every step."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from clio_client.membership import Member
from clio_control_api.action import Action, ActionResult
from clio_control_api.audit import AuditLog
from clio_control_api.errors import ApiError, Conflict, NotFound, Unavailable
from clio_control_api.metrics import Metrics
from clio_control_api.operations import gates
from clio_control_api.operations.gates import Evidence, Gate, Seen
from clio_control_api.operations.model import (
    ABORTED,
    ABORTING,
    ACTING,
    CHECKING,
    DONE,
    FAILED,
    INTERRUPTED,
    PAUSED,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
    WAITING,
    NodeProgress,
    Operation,
    Orders,
)
from clio_control_api.operations.plan import next_batch, planned
from clio_control_api.operations.store import MAX_KEPT, OperationStore
from clio_control_api.operations.world import World
from clio_web.logs import get_logger

POLL_S: Final = 0.5
"""Time between two looks while gates are waited for."""

POLL_S_A_NODE: Final = 0.004
"""How much more it is for each node that is looked at: a look at 500 of them is 500 questions."""

ACTION_LIMIT_S: Final = 1800.0
"""For the case that the bounds of an action itself fail."""

SAME_RUN_S: Final = 45.0
"""After a restart of this service: how long the runtime that was to be restarted may still be the old one
before the restart is asked for again. Ending one that hangs takes 35 s."""

_KEEP_ALIVE_S: Final = 30.0
_log = get_logger(__name__)


class _Stopped(Exception):  # noqa: N818 - a condition
    """The service ends: the operation is left as it is written down."""


class _Looks:
    """The looks at a node that its next one is compared with."""

    def __init__(self) -> None:
        self._looks: list[tuple[float, Seen]] = []
        self.several = False

    def add(self, now: float, look: Seen) -> Seen | None:
        """The newest look that is at least `STUCK_S` older than this one."""
        self.several = bool(self._looks)
        old = [number for number, (at, _) in enumerate(self._looks) if now - at >= gates.STUCK_S]
        del self._looks[: old[-1] if old else 0]
        self._looks.append((now, look))
        return self._looks[0][1] if old else None


class OperationRunner:
    """All operations of a service. Thread-safe; `close` ends the threads, the next start goes on."""

    def __init__(
        self,
        world: World,
        store: OperationStore,
        audit: AuditLog,
        metrics: Metrics,
        *,
        resume_within: float = 600.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``resume_within``: an operation left alone for no longer than this (seconds) goes on by itself."""
        self._world = world
        self._store = store
        self._audit = audit
        self._metrics = metrics
        self._resume_within = resume_within
        self._clock = clock
        self._changed = threading.Condition()
        self._operations: dict[str, Operation] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._closing = threading.Event()

    # --- what is asked of it ----------------------------------------------------------------------

    def plan(self, orders: Orders) -> tuple[NodeProgress, ...]:
        """The nodes in the order in which they would be acted on.

        Raises:
            ApiError: no node is meant, or who the members are cannot be told.
        """
        return self._plan(orders)[0]

    def start(
        self,
        orders: Orders,
        allowed: Callable[[Member], None] = lambda _: None,
        as_shown: Callable[[tuple[NodeProgress, ...]], bool] = lambda _: True,
    ) -> Operation:
        """Begin an operation and return at once.

        Args:
            allowed: raises for a node that the caller may not act on.
            as_shown: whether a plan is the one that the user saw.

        Raises:
            Conflict: another operation of the cluster has not ended, or the plan has changed.
            ApiError: as `plan`; or it cannot be written down.
        """
        nodes, members, seen = self._plan(orders)
        for node in nodes:
            allowed(members[node.node_id])
        if not as_shown(nodes):
            raise Conflict("the plan has changed since it was shown: look at it again")
        alerts = self._world.alerts()
        if isinstance(alerts, str):
            raise Unavailable(f"{alerts}; without it nobody can tell whether the cluster stays well")
        now = self._clock()
        operation = Operation(
            secrets.token_hex(8), orders, nodes, began=now, updated=now,
            up_before=tuple(sorted(number for number, look in seen.items() if look.up)),
            alerts_before=None if alerts is None else tuple(sorted({alert.labels for alert in alerts})),
        )  # fmt: skip
        with self._changed:
            if self._closing.is_set():
                raise Unavailable("the service is stopping")
            self._refuse_second(orders.cluster)
            self._audited("operation_begin", operation, nodes=[node.node_id for node in nodes])
            self._store.save(operation)
            self._operations[operation.id] = operation
            self._forget_old()
        self._run(operation)
        return operation

    def find(self, operation_id: str) -> Operation:
        """One operation; raises `NotFound`."""
        with self._changed:
            found = self._operations.get(operation_id)
        if found is None:
            raise NotFound("there is no operation of that id; /api/operations lists those there are")
        return found

    def all(self) -> list[Operation]:
        """All that are known, newest first."""
        with self._changed:
            return sorted(self._operations.values(), key=lambda found: -found.began)

    def under_way(self, cluster: str) -> Operation | None:
        """The operation of a cluster that has not ended."""
        with self._changed:
            return self._under_way(cluster)

    def check_free(self, member: Member) -> None:
        """Raises `Conflict` where a node belongs to an operation that has not ended."""
        found = self.under_way(member.cluster)
        if found is not None and found.node(member.node_id) is not None:
            raise Conflict(
                f"node {member.node_id} belongs to the {found.title} {found.id} by {found.orders.actor}, "
                f"which is {found.state}; abort that first",
                operation=found.id,
            )

    def wait(self, operation_id: str, revision: int, seconds: float) -> Operation:
        """The operation once it is newer than `revision` or has ended, or after `seconds`."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._closing.is_set()
                    or (found := self._operations.get(operation_id)) is None
                    or found.revision > revision
                    or not found.under_way
                ),
                seconds,
            )
        return self.find(operation_id)

    @property
    def closing(self) -> bool:
        """Whether the service ends."""
        return self._closing.is_set()

    def abort(self, operation_id: str, actor: str) -> Operation:
        """Begin no further node; what is under way on nodes is seen to its end."""
        return self._command(operation_id, actor, "abort", {RUNNING: ABORTING, PAUSED: ABORTING})

    def pause(self, operation_id: str, actor: str) -> Operation:
        """Begin no further node until it is resumed."""
        return self._command(operation_id, actor, "pause", {RUNNING: PAUSED})

    def resume(self, operation_id: str, actor: str) -> Operation:
        """Go on with one that is paused or was interrupted."""
        found = self._command(operation_id, actor, "resume", {PAUSED: RUNNING, INTERRUPTED: RUNNING})
        self._run(found)
        return found

    # --- over restarts of the service -------------------------------------------------------------

    def restore(self) -> None:
        """Take up what was written down: go on, or mark as interrupted what was left alone for too long."""
        with self._changed:
            for operation in self._store.load():
                self._operations[operation.id] = operation
            going = [found for found in self._operations.values() if found.under_way]
        for operation in going:
            idle = self._clock() - operation.updated
            with contextlib.suppress(ApiError):
                if operation.state == PAUSED or 0 <= idle <= self._resume_within:
                    self._audited("operation_resume", operation, after_seconds=round(idle, 1))
                    self._run(operation)
                    continue
                text = f"the service was not there for {idle:.0f} s; resume it, or begin another"
                self._finish(operation.id, INTERRUPTED, text)

    def close(self, timeout: float = 10.0) -> None:
        """End all threads; operations stay as they are written down."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
            threads = list(self._threads.values())
        deadline = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    # --- state ------------------------------------------------------------------------------------

    def _plan(
        self, orders: Orders
    ) -> tuple[tuple[NodeProgress, ...], Mapping[int, Member], Mapping[int, Seen]]:
        members = self._world.members(orders.cluster)
        seen = self._world.look(members, ())
        return planned(orders, members, seen), {m.node_id: m for m in members}, seen

    def _under_way(self, cluster: str) -> Operation | None:
        found = (o for o in self._operations.values() if o.under_way and o.orders.cluster == cluster)
        return next(found, None)

    def _refuse_second(self, cluster: str) -> None:
        busy = self._under_way(cluster)
        if busy is not None:
            raise Conflict(
                f"the {busy.title} {busy.id} by {busy.orders.actor} is {busy.state} "
                f"({busy.done} of {len(busy.nodes)} nodes done); one operation a cluster at a time",
                operation=busy.id,
            )

    def _command(self, operation_id: str, actor: str, word: str, moves: Mapping[str, str]) -> Operation:
        with self._changed:
            found = self._operations.get(operation_id)
            if found is None:
                raise NotFound("there is no operation of that id; /api/operations lists those there are")
            if found.state not in moves:
                raise Conflict(f"the operation is {found.state}: no {word} now", operation=found.id)
            if not found.under_way:
                self._refuse_second(found.orders.cluster)
            self._audited(f"operation_{word}", found, by=actor)
            message = f"{word} asked for by {actor}"
            return self._put(replace(found, state=moves[found.state], message=message, ended=None))

    def _put(self, operation: Operation) -> Operation:
        """Write down and show; the lock is held."""
        known = self._operations.get(operation.id, operation)
        operation = replace(operation, revision=known.revision + 1, updated=self._clock())
        self._store.save(operation)
        self._operations[operation.id] = operation
        self._changed.notify_all()
        return operation

    def _change(self, operation_id: str, change: Callable[[Operation], Operation]) -> Operation:
        with self._changed:
            return self._put(change(self._operations[operation_id]))

    def _node(self, operation_id: str, node_id: int, **changes: Any) -> Operation:
        return self._change(operation_id, lambda found: found.with_node(node_id, **changes))

    def _finish(self, operation_id: str, state: str, message: str) -> None:
        now = self._clock()

        def end(found: Operation) -> Operation:
            if state != INTERRUPTED:
                for node in found.in_state(WAITING):
                    found = found.with_node(node.node_id, state=SKIPPED, message="not begun")
            return replace(found, state=state, message=message, ended=now)

        with self._changed:
            found = end(self._operations[operation_id])
            # Before it is shown: who sees the end finds it in the audit log too, which logs its own failures.
            with contextlib.suppress(ApiError):
                self._audited("operation_end", found, outcome=state, error=message or None, done=found.done)
            self._metrics.operations.labels(found.orders.action, state).inc()
            try:
                self._put(found)
            except ApiError as error:
                # Nothing more can be written down: what is shown is true all the same.
                told = f"{message}; {error}".lstrip("; ")
                self._operations[operation_id] = replace(found, message=told, revision=found.revision + 1)
                self._changed.notify_all()
        log = _log.info if state == SUCCEEDED else _log.warning
        log(
            f"{found.title} ended", id=found.id, outcome=state, done=found.done, nodes=len(found.nodes),
            message=message or None,
        )  # fmt: skip

    def _forget_old(self) -> None:
        ended = sorted((o for o in self._operations.values() if not o.under_way), key=lambda o: o.began)
        for old in ended[: max(0, len(ended) - MAX_KEPT)]:
            del self._operations[old.id]
            with contextlib.suppress(OSError):
                self._store.remove(old)

    def _audited(self, event: str, operation: Operation, **more: Any) -> None:
        orders = operation.orders
        self._audit.write(
            event, id=operation.id, action=operation.title, actor=orders.actor, role=orders.role,
            client=orders.client, reason=orders.reason or None, cluster=orders.cluster or None, **more,
        )  # fmt: skip

    # --- in the operation's thread ----------------------------------------------------------------

    def _run(self, operation: Operation) -> None:
        """Give an operation its thread, unless it has one."""
        with self._changed:
            if self._closing.is_set() or operation.id in self._threads:
                return
            thread = threading.Thread(
                target=self._work, args=(operation.id,), name=f"operation-{operation.id}", daemon=True
            )
            self._threads[operation.id] = thread
        try:
            thread.start()
        except RuntimeError as error:  # how Python says that the system gives no more threads
            with self._changed:
                del self._threads[operation.id]
            self._finish(operation.id, INTERRUPTED, f"no thread could be started: {error}")

    def _work(self, operation_id: str) -> None:
        try:
            with self._metrics.operations_running.track_inprogress():
                self._go_on(operation_id)
        except _Stopped:
            return
        except ApiError as error:
            self._finish(operation_id, FAILED, str(error))
        except Exception as error:  # noqa: BLE001 - nobody above this thread would see it
            _log.error("an operation failed", id=operation_id, exc_info=error)
            self._finish(
                operation_id, FAILED, f"internal error; the log has it under operation {operation_id}"
            )
        finally:
            with self._changed:
                self._threads.pop(operation_id, None)

    def _go_on(self, operation_id: str) -> None:
        unfinished = self.find(operation_id).in_state(ACTING, CHECKING)
        while True:
            if unfinished:
                self._batch(operation_id, unfinished, again=True)
                unfinished = ()
            operation = self._released(operation_id)
            failed = operation.in_state(FAILED)
            if failed:
                texts = "; ".join(f"node {node.node_id} {node.message}" for node in failed)
                self._finish(operation_id, FAILED, texts)
                return
            if operation.state == ABORTING and operation.in_state(WAITING):
                self._finish(operation_id, ABORTED, operation.message)
                return
            members = {m.node_id: m for m in self._world.members(operation.orders.cluster)}
            waiting = [members[n.node_id] for n in operation.in_state(WAITING) if n.node_id in members]
            looks = self._world.look(waiting, ())
            batch = next_batch(operation, [n for n, look in looks.items() if look.leader])
            if not batch:
                self._finish(operation_id, SUCCEEDED, "")
                return
            self._batch(operation_id, batch)

    def _released(self, operation_id: str) -> Operation:
        """The operation once it is not paused."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closing.is_set() or self._operations[operation_id].state != PAUSED
            )
            self._check_closing()
            return self._operations[operation_id]

    def _batch(self, operation_id: str, batch: tuple[NodeProgress, ...], *, again: bool = False) -> None:
        """Act on these nodes together and see each through its gates."""
        begun: list[tuple[int, Action]] = []
        for node in batch:
            if again and (node.state == CHECKING or not self._must_act_again(operation_id, node)):
                continue
            action = self._act(operation_id, node, again=again)
            if action is not None:
                begun.append((node.node_id, action))
        for number, action in begun:
            self._concluded(operation_id, number, self._await_action(operation_id, number, action))
        self._await_gates(operation_id, [node.node_id for node in batch])

    def _act(self, operation_id: str, node: NodeProgress, *, again: bool) -> Action | None:
        """Begin the action on a node; None when it was refused, which fails the node."""
        operation = self.find(operation_id)
        number = node.node_id
        if not again:
            node = self._noted(operation, node)
        self._node(operation_id, number, state=ACTING, message="begun", began=node.began or self._clock())
        try:
            action = self._world.act(operation.orders, node, operation_id)
        except ApiError as error:
            self._fail(operation_id, number, f"was not acted on: {error}")
            return None
        self._node(operation_id, number, action_id=action.id)
        return action

    def _noted(self, operation: Operation, node: NodeProgress) -> NodeProgress:
        """With what it is just before it is acted on: pools come and go while an operation runs."""
        members = [m for m in self._world.members(operation.orders.cluster) if m.node_id == node.node_id]
        look = self._world.look(members, [node.node_id]).get(node.node_id)
        if look is None or not look.up:
            return node
        pools = node.pools if look.pools is None else tuple(sorted(look.pools))
        changed = self._node(operation.id, node.node_id, run=look.run, pools=pools).node(node.node_id)
        return changed or node

    def _must_act_again(self, operation_id: str, node: NodeProgress) -> bool:
        """Whether the action, begun before the service ended, has left no trace on its node.

        Otherwise what came of it is noted. A restart goes on without us, and its node tells the outcome;
        where it does not, the runtime may be the old one for as long as it takes to end it.
        """
        operation, number = self.find(operation_id), node.node_id
        restart = operation.orders.action == "restart"
        result = self._followed(operation, node) if restart and node.action_id else None
        if result is not None and result.outcome in ("success", "not_up"):
            self._concluded(operation_id, number, result)
            return False
        deadline = time.monotonic() + min(SAME_RUN_S, operation.orders.wait)
        while True:
            members = [m for m in self._world.members(operation.orders.cluster) if m.node_id == number]
            look = self._world.look(members, ()).get(number)
            if look is None or not look.up or (restart and (node.run is None or look.run != node.run)):
                self._node(operation_id, number, state=CHECKING, message="looked at again")
                return False
            if not restart or time.monotonic() >= deadline:
                return True
            self._pause()

    def _followed(self, operation: Operation, node: NodeProgress) -> ActionResult | None:
        """What the node tells of a restart that was begun before the service ended."""
        try:
            action = self._world.follow(operation.orders, node, operation.id)
        except ApiError:
            return None
        return self._await_action(operation.id, node.node_id, action)

    def _await_action(self, operation_id: str, number: int, action: Action) -> ActionResult | None:
        """The answer to an action; None when there is none."""
        deadline = time.monotonic() + ACTION_LIMIT_S
        stage, told = "", time.monotonic()
        while not action.answered.wait(POLL_S):
            self._check_closing()
            if action.stage != stage or time.monotonic() - told >= _KEEP_ALIVE_S:
                stage, told = action.stage, time.monotonic()
                self._node(operation_id, number, message=stage)
            if time.monotonic() >= deadline:
                break
        # An answer that came because the service ends says nothing about the node.
        self._check_closing()
        return action.answer

    def _concluded(self, operation_id: str, number: int, result: ActionResult | None) -> None:
        """Note what came of a node's action."""
        action = self.find(operation_id).orders.action
        if result is None:
            self._fail(operation_id, number, f"did not {action}: it has not ended")
        elif not result.success:
            self._fail(operation_id, number, f"did not {action}: {result.error}")
        else:
            self._node(operation_id, number, state=CHECKING, message="its gates are looked at")

    def _await_gates(self, operation_id: str, numbers: list[int]) -> None:
        """Look at the nodes that are being checked until all their gates hold, or their time is up."""
        history: dict[int, _Looks] = {number: _Looks() for number in numbers}
        started = told = time.monotonic()
        while True:
            operation = self.find(operation_id)
            checking = [n for n in operation.in_state(CHECKING) if n.node_id in numbers]
            if not checking:
                return
            late = time.monotonic() >= started + operation.orders.wait
            members = self._world.members(operation.orders.cluster)
            looks = self._world.look(members, [node.node_id for node in checking])
            alerts = self._world.alerts()
            now = time.monotonic()
            acted = [node.node_id for node in operation.nodes if node.state not in (WAITING, SKIPPED)]
            for node in checking:
                look = looks.get(node.node_id) or Seen(node.node_id, "it is no longer a member")
                earlier = history[node.node_id].add(now, look)
                evidence = Evidence(look, earlier, looks, expected_up(operation, node), alerts)
                closed = gates.judge(operation.orders, node, evidence, operation.alerts_before, acted)
                if not closed:
                    self._node(operation_id, node.node_id, state=DONE, message="", ended=self._clock())
                elif late and history[node.node_id].several:
                    self._fail(operation_id, node.node_id, _told(closed[0]))
                elif node.message != _waits(closed[0]) or now - told >= _KEEP_ALIVE_S:
                    told = now
                    self._node(operation_id, node.node_id, message=_waits(closed[0]))
            self._pause(len(members))

    def _fail(self, operation_id: str, number: int, message: str) -> None:
        self._node(operation_id, number, state=FAILED, message=message, ended=self._clock())

    def _pause(self, looked_at: int = 1) -> None:
        self._closing.wait(POLL_S + looked_at * POLL_S_A_NODE)
        self._check_closing()

    def _check_closing(self) -> None:
        if self._closing.is_set():
            raise _Stopped


def expected_up(operation: Operation, node: NodeProgress) -> tuple[int, ...]:
    """The other nodes that ought to answer while this one's gates are looked at."""
    busy = {n.node_id for n in operation.in_state(ACTING, CHECKING, FAILED)} | {node.node_id}
    if operation.orders.action == "shutdown":
        return tuple(
            n for n in operation.up_before if n not in busy | {d.node_id for d in operation.in_state(DONE)}
        )
    came_back = {n.node_id for n in operation.in_state(DONE)}
    return tuple(sorted((set(operation.up_before) | came_back) - busy))


def _told(gate: Gate) -> str:
    return f"{gate.problem} (gate: {gate.name})"


def _waits(gate: Gate) -> str:
    return f"waits: {_told(gate)}"
