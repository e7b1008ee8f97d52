"""Scheduler: are workers saturated or stuck, who ran when, and how good are the cost models."""

from __future__ import annotations

from grafana.generator import thresholds, variables
from grafana.generator.annotations import actions, marks
from grafana.generator.board import Board
from grafana.generator.boards.node import WHO_RAN_WHEN, worker_states
from grafana.generator.panels import Column, Query, Section, Tile, lines, number, rows, states
from grafana.generator.queries import BDEV_KEYS, BUSIEST, KEYS, NODE, per_device, per_worker, rate

_NONE = "No workers reported"
_NO_MODELS = "No cost model has learned yet"
_NO_COST = "Needs the exporter's --collector.cost"


def board() -> Board:
    """The dashboard."""
    busiest = (
        f"sum by ({KEYS}) ({per_worker('clio_worker_queued_tasks')} "
        f"+ {per_worker('clio_worker_blocked_tasks')}) "
        f"+ sum by ({KEYS}) ({rate('clio_worker_tasks_processed_total', window='5m')}) / 1e6"
    )
    return Board(
        uid="clio-scheduler",
        question="Are workers saturated or stuck, who ran when, and do the cost models predict well.",
        variables=[
            variables.cluster(),
            variables.node(),
            variables.busiest(busiest, "Nodes with most tasks waiting, then with most tasks executed."),
        ],
        annotations=[actions(NODE), marks()],
        sections=[
            Section("", _totals()),
            Section("Saturation", _saturation()),
            Section("Workers of the busiest nodes", _workers()),
            Section("Cost models", _errors()),
            Section("Cost models of each method (--collector.cost)", _models(), collapsed=True),
        ],
    )


def _totals() -> list[Tile]:
    return [
        number(
            "Workers",
            "Worker threads that run on the selected nodes (clio_worker_running).",
            f"sum({per_worker('clio_worker_running')})",
            width=4,
            decimals=0,
            empty=_NONE,
        ),
        number(
            "Workers busy",
            "Share of the time of 5 minutes in which workers had work, mean of the nodes "
            "(node:clio_worker_busy:ratio5m). From 90 % it wants a look.",
            f"avg(node:clio_worker_busy:ratio5m{{{NODE}}})",
            unit="percentunit",
            band=thresholds.WORKERS_BUSY,
            width=4,
            trend=True,
            decimals=0,
            empty="Recording rules not loaded",
        ),
        number(
            "Workers stuck",
            "Workers that had work in every scrape of 10 minutes and completed none of it "
            "(worker:clio_worker_stuck:bool10m). Anything but 0 is bad.",
            f"sum(worker:clio_worker_stuck:bool10m{{{NODE}}})",
            band=thresholds.ANY_IS_BAD,
            width=4,
            decimals=0,
            empty="Recording rules not loaded",
        ),
        number(
            "Tasks queued",
            "Tasks in the workers' queues (clio_worker_queued_tasks).",
            f"sum({per_worker('clio_worker_queued_tasks')})",
            width=4,
            trend=True,
            decimals=0,
            empty=_NONE,
        ),
        number(
            "Tasks blocked",
            "Tasks that wait for others (clio_worker_blocked_tasks). Bad when it stays up and nothing runs.",
            f"sum({per_worker('clio_worker_blocked_tasks')})",
            width=4,
            trend=True,
            decimals=0,
            empty=_NONE,
        ),
        number(
            "Tasks executed",
            "Tasks completed a second (clio_worker_tasks_processed_total).",
            f"sum({rate('clio_worker_tasks_processed_total')})",
            unit="ops",
            width=4,
            trend=True,
            empty=_NONE,
        ),
    ]


def _saturation() -> list[Tile]:
    busy = f"max by ({KEYS}) (node:clio_worker_busy:ratio5m{{{BUSIEST}}})"
    return [
        lines(
            "Workers busy by node",
            "Share of the time of 5 minutes in which workers had work, of the busiest nodes, and the mean of all "
            "selected nodes (node:clio_worker_busy:ratio5m). From 90 % a node has nothing to spare.",
            [
                Query(busy, "node {{node_id}} ({{hostname}})"),
                Query(
                    f"avg(node:clio_worker_busy:ratio5m{{{NODE}}})",
                    "mean of all",
                    thresholds.IDLE,
                    dashed=True,
                ),
            ],
            unit="percentunit",
            band=thresholds.WORKERS_BUSY,
            high=1,
            empty=_NONE,
        ),
        lines(
            "Load against workers",
            "CPU seconds that all tasks in hand will need by the learned cost models (clio_worker_load, left), "
            "and the worker threads there are to do it (clio_worker_running, right). Load far above the number "
            "of workers means more than a second of work for each.",
            [
                Query(f"sum({per_worker('clio_worker_load')})", "load", "blue"),
                Query(
                    f"sum({per_worker('clio_worker_running')})",
                    "workers",
                    thresholds.IDLE,
                    unit="none",
                    right_axis=True,
                ),
            ],
            unit="s",
            empty=_NONE,
        ),
        lines(
            "Tasks waiting by node",
            "Queued and blocked tasks of the nodes where most wait (clio_worker_queued_tasks, "
            "clio_worker_blocked_tasks). Bad when one node grows and the others do not.",
            [
                Query(
                    f"sum by ({KEYS}) ({per_worker('clio_worker_queued_tasks', BUSIEST)} "
                    f"+ {per_worker('clio_worker_blocked_tasks', BUSIEST)})",
                    "node {{node_id}} ({{hostname}})",
                )
            ],
            decimals=0,
            empty=_NONE,
        ),
        lines(
            "Workers coming and going",
            "Worker threads by node: the runtime adds workers under load and retires them "
            "(clio_worker_running). A node whose line ends is down.",
            [
                Query(
                    f"sum by ({KEYS}) ({per_worker('clio_worker_running', BUSIEST)})",
                    "node {{node_id}} ({{hostname}})",
                )
            ],
            decimals=0,
            empty=_NONE,
        ),
    ]


def _workers() -> list[Tile]:
    return [
        states(
            "Who ran when",
            f"Of the busiest nodes, named node / worker. {WHO_RAN_WHEN}",
            [Query(worker_states(BUSIEST), "{{node_id}} / {{worker_id}}")],
            thresholds.WORKER_STATE,
            height=12,
            empty=_NONE,
        ),
        *(
            lines(
                title,
                text,
                [Query(per_worker(metric, BUSIEST), "{{node_id}} / {{worker_id}}")],
                decimals=0,
                empty=_NONE,
            )
            for title, text, metric in (
                (
                    "Queue by worker",
                    "Tasks queued at each worker, named node / worker (clio_worker_queued_tasks). Bad when one "
                    "worker's queue grows.",
                    "clio_worker_queued_tasks",
                ),
                (
                    "Blocked by worker",
                    "Tasks of each worker that wait for others, named node / worker "
                    "(clio_worker_blocked_tasks). Bad when it stays up and nothing is executed.",
                    "clio_worker_blocked_tasks",
                ),
            )
        ),
    ]


def _errors() -> list[Tile]:
    return [
        lines(
            "Error of the cost models",
            "How far the learned CPU costs of the eight worst pools are off: median of a pool's methods, mean of "
            "the selected nodes (clio_pool_cost_error_ratio). Rising means that the work changes faster than the "
            "models learn.",
            [
                Query(
                    f"topk(8, avg by (pool_name) ({per_device('clio_pool_cost_error_ratio')}))",
                    "{{pool_name}}",
                )
            ],
            unit="percentunit",
            band=thresholds.COST_ERROR,
            width=24,
            empty=_NO_MODELS,
        )
    ]


def _models() -> list[Tile]:
    keys = "pool_name, method, model"

    def learned(metric: str) -> str:
        return f"max by ({BDEV_KEYS}, method, model) ({metric}{{{NODE}}})"

    return [
        rows(
            "Learned cost models",
            "What each method of each pool costs a unit of work by the model the scheduler has learned, by CPU "
            "and by wall clock, and how far it is off: the mean error against the true cost, as mean of the "
            "selected nodes and of the worst (clio_method_cost_coefficient, clio_method_cost_error_ratio). "
            "From 500 % it wants a look.",
            [
                f"avg by ({keys}) ({learned('clio_method_cost_coefficient')})",
                f"avg by ({keys}) ({learned('clio_method_cost_error_ratio')})",
                f"max by ({keys}) (clio_method_cost_error_ratio{{{NODE}}})",
                f"count by ({keys}) ({learned('clio_method_cost_error_ratio')})",
            ],
            [
                Column("pool_name", "Pool"),
                Column("method", "Method", width=150),
                Column("model", "Clock", width=70),
                Column("A", "Cost per unit", "µs", 105),
                Column("B", "Mean error", "percentunit", 110, "colour", thresholds.COST_ERROR, decimals=0),
                Column("C", "Worst error", "percentunit", 100, "colour", thresholds.COST_ERROR, decimals=0),
                Column("D", "Nodes", "none", 60),
            ],
            sort="Mean error",
            width=15,
            height=12,
            empty=_NO_COST,
        ),
        lines(
            "Learning rate",
            "How fast the cost models of the pools follow what they see, lowest and highest "
            "(clio_pool_learning_rate).",
            [
                Query(f"min(clio_pool_learning_rate{{{NODE}}})", "lowest", "blue"),
                Query(f"max(clio_pool_learning_rate{{{NODE}}})", "highest", "purple"),
            ],
            unit="none",
            high=1,
            width=9,
            height=12,
            empty=_NO_COST,
        ),
    ]
