"""Logging: structlog over the standard library, one line an event, on standard error.

Every event has `ts` (RFC 3339, UTC, milliseconds), `level`, `component` (the module below
`exporter.`, or a library's logger name), `msg` and then whatever was bound, by convention
`cluster`, `node`, `node_id` and `error`. Libraries that log through `logging` come out the same way.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LEVELS: dict[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
FORMATS = ("logfmt", "json")

_KEY_ORDER = ("ts", "level", "component", "msg")
# Everything below a space would let a logged name forge a line or drive a terminal.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)}
_CONTROL[0x09] = "\\t"


def get_logger(name: str) -> Any:
    """A bound logger for a module: `get_logger(__name__)`; add fields with `.bind(node=...)`."""
    return structlog.stdlib.get_logger(name)


def configure(
    level: str = "info", log_format: Literal["logfmt", "json"] | str = "logfmt", stream: TextIO | None = None
) -> None:
    """Send all logging to `stream` (standard error) in the given format. May be called again.

    Raises ValueError for a level or format that does not exist.
    """
    if level not in LEVELS:
        raise ValueError(f"log level {level!r}: choose one of {', '.join(LEVELS)}")
    if log_format not in FORMATS:
        raise ValueError(f"log format {log_format!r}: choose one of {', '.join(FORMATS)}")
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.PositionalArgumentsFormatter(),
        _add_standard_fields,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    if log_format == "json":
        render: list[Processor] = [_order, structlog.processors.JSONRenderer(default=str)]
    else:
        render = [
            _printable,
            structlog.processors.LogfmtRenderer(key_order=_KEY_ORDER, drop_missing=True, bool_as_flag=False),
        ]
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                *render,
            ],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(LEVELS[level])
    # werkzeug logs each request of its development server; nothing here needs that below debug.
    logging.getLogger("werkzeug").setLevel(max(LEVELS[level], logging.WARNING))


def log_uncaught_in_threads() -> None:
    """Log an exception that ends a thread as one event instead of a bare traceback."""

    def hook(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is SystemExit or args.exc_value is None:
            return
        get_logger("exporter.threads").error(
            "a thread ended with an exception",
            thread=args.thread.name if args.thread else None,
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        )

    threading.excepthook = hook


def _add_standard_fields(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    record = event.get("_record")
    created = record.created if record is not None else time.time()
    name = record.name if record is not None else getattr(logger, "name", "") or "root"
    now = datetime.fromtimestamp(created, tz=timezone.utc)
    level = record.levelname.lower() if record is not None else method
    event["ts"] = now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03d}Z"
    event["level"] = {"warning": "warn", "critical": "error", "exception": "error"}.get(level, level)
    event["component"] = name.removeprefix("exporter.")
    event["msg"] = event.pop("event", "")
    return event


def _order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    ordered = {key: event.pop(key) for key in _KEY_ORDER if key in event}
    return {**ordered, **event}


def _printable(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Make keys and values safe for logfmt, whatever they contain."""
    clean: EventDict = {}
    for key, value in event.items():
        name = "".join(c if c > " " and c not in '="' else "_" for c in str(key)) or "_"
        plain = isinstance(value, (bool, int, float, type(None)))
        clean[name] = value if plain else str(value).translate(_CONTROL)
    return clean


@dataclass
class _Down:
    since: float
    logged: float
    repeats: int = 0
    suppressed: int = 0


class StateLog:
    """Logs that something went down or came back, without a line for each failed scrape between.

    A key that was never reported down counts as up. The first failure logs a warning, recovery an
    info line; while it stays down the warning is repeated after 1 minute, then after 10, then
    hourly, with the number of reports not logged (`suppressed`) and `down_seconds`.

    Memory is bounded: only keys that are down are remembered, at most `max_keys` of them (the one
    reported longest ago is dropped). `clock` returns monotonic seconds.
    """

    INTERVALS = (60.0, 600.0, 3600.0)

    def __init__(
        self, logger: Any, clock: Callable[[], float] = time.monotonic, max_keys: int = 16384
    ) -> None:
        self._logger = logger
        self._clock = clock
        self._max_keys = max_keys
        self._lock = threading.Lock()
        self._down: OrderedDict[object, _Down] = OrderedDict()

    def report(self, key: object, ok: bool, message: str, **fields: Any) -> None:
        """Report the state of `key`; `fields` are logged with the message when a line is due."""
        with self._lock:
            now = self._clock()
            extra = self._recovered(key, now) if ok else self._failed(key, now)
        if extra is not None:
            log = self._logger.info if ok else self._logger.warning
            log(message, **fields, **extra)

    def forget(self, key: object) -> None:
        """Drop a key that no longer exists (a node that left)."""
        with self._lock:
            self._down.pop(key, None)

    def __len__(self) -> int:
        with self._lock:
            return len(self._down)

    def _recovered(self, key: object, now: float) -> dict[str, Any] | None:
        state = self._down.pop(key, None)
        if state is None:
            return None
        return {"suppressed": state.suppressed, "down_seconds": round(now - state.since, 3)}

    def _failed(self, key: object, now: float) -> dict[str, Any] | None:
        state = self._down.get(key)
        if state is None:
            self._down[key] = _Down(since=now, logged=now)
            while len(self._down) > self._max_keys:
                self._down.popitem(last=False)
            return {}
        self._down.move_to_end(key)
        wait = self.INTERVALS[min(state.repeats, len(self.INTERVALS) - 1)]
        if now - state.logged < wait:
            state.suppressed += 1
            return None
        extra = {"suppressed": state.suppressed, "down_seconds": round(now - state.since, 3)}
        state.logged, state.suppressed = now, 0
        state.repeats += 1
        return extra


class DefectLog:
    """Logs exceptions that should not happen, with traceback: each kind as rarely as `StateLog` does.

    A defect that a thousand nodes bring to light in every scrape is one line, not a flood.
    """

    def __init__(self, logger: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._states = StateLog(logger, clock, max_keys=256)

    def report(self, defect: BaseException, message: str, **fields: Any) -> None:
        """Report one; its kind is its type and where it was raised."""
        frame = defect.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        place = None if frame is None else (frame.tb_frame.f_code.co_filename, frame.tb_lineno)
        self._states.report((type(defect), place), False, message, **fields, exc_info=defect)
