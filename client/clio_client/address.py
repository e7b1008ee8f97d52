"""Where runtimes listen, and `host:port` as text: the one place that knows ports and how they are written."""

from __future__ import annotations

import re
from typing import Final

DEFAULT_PORT: Final = 9413
"""Base port of a runtime that is not configured otherwise (`networking.port`)."""

CLIENT_PORT_OFFSET: Final = 3
"""Clients connect to base port + 3 (wire protocol, section 1)."""

PORT_OFFSETS: Final = (0, 1, CLIENT_PORT_OFFSET)
"""Ports of a runtime above its base port: node to node, the mark that a runtime is here, clients."""

HIGHEST_PORT: Final = 65535
MAX_PORT: Final = HIGHEST_PORT - CLIENT_PORT_OFFSET
"""The highest usable base port: clients are served on the base port + 3."""

_DIGITS = re.compile(r"[0-9]{1,5}", re.ASCII)


def port_number(text: str, low: int = 1, high: int = HIGHEST_PORT) -> int | None:
    """The port that `text` is, from `low` to `high`; None when it is none."""
    return int(text) if _DIGITS.fullmatch(text) and low <= int(text) <= high else None


def split_host_port(text: str) -> tuple[str, str | None]:
    """Host and port, unchecked, of `host`, `host:port`, `[v6]` or `[v6]:port`; no colon: no port.

    Raises:
        ValueError: more than one colon outside brackets.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not [address]:port")
        return host, rest[1:] if rest else None
    host, colon, port = text.partition(":")
    if ":" in port:
        raise ValueError(f"{text!r} has more than one ':'; write an IPv6 address as [address]:port")
    return host, port if colon else None


def parse_host_port(text: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[v6]:port` or `:port` (the host is then empty).

    Raises:
        ValueError: the port is missing or not from 1 to 65535, or the IPv6 address has no brackets.
    """
    host, digits = split_host_port(text)
    port = port_number(digits or "")
    if port is None:
        raise ValueError(f"{text!r} is not host:port with a port of 1 to {HIGHEST_PORT}")
    return host, port


def join_host_port(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
