"""Logging: structlog over the standard library, one line an event, on standard error.

Every event has `ts` (RFC 3339, UTC, milliseconds), `level`, `component` (the module below
`clio_`: `exporter.engine`; or a library's logger name), `msg` and then whatever was bound, by convention
`cluster`, `node`, `node_id` and `error`. Libraries that log through `logging` come out the same way.
"""

from __future__ import annotations

import logging
import sys
import time
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
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
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


def _add_standard_fields(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    record = event.get("_record")
    created = record.created if record is not None else time.time()
    name = record.name if record is not None else getattr(logger, "name", "") or "root"
    now = datetime.fromtimestamp(created, tz=timezone.utc)
    level = record.levelname.lower() if record is not None else method
    event["ts"] = now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03d}Z"
    event["level"] = {"warning": "warn", "critical": "error", "exception": "error"}.get(level, level)
    event["component"] = name.removeprefix("clio_")
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
