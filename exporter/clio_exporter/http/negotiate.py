"""Pure functions that read request headers and query arguments.

Every function either returns a value or raises BadRequest, whose text is the answer's body.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Sequence

from werkzeug.datastructures import Accept
from werkzeug.http import parse_list_header, parse_options_header

from clio_client.address import parse_host_port

TEXT_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TIMEOUT_HEADER = "X-Prometheus-Scrape-Timeout-Seconds"
MAX_TIMEOUT = 300.0
"""Seconds; a larger timeout header is cut to this, so that no request holds a thread for hours."""

_OPENMETRICS = "application/openmetrics-text"
_OPENMETRICS_VERSIONS = ("1.0.0", "0.0.1")
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{0,12})?|\.[0-9]{1,12}", re.ASCII)
# RFC 1123 names, with the underscore that cluster host names do contain.
_HOSTNAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?"
)


class BadRequest(ValueError):  # noqa: N818 - the HTTP status it becomes
    """The request cannot be served as asked; the message names the argument and the remedy."""


def _quality(text: str | None) -> float:
    """The q parameter (RFC 9110 section 12.4.2); absent is 1, malformed counts as 0."""
    if text is None:
        return 1.0
    return min(float(text), 1.0) if _NUMBER.fullmatch(text) else 0.0


def exposition_format(accept: str | None) -> tuple[bool, str]:
    """Choose the format for an Accept header: (OpenMetrics?, Content-Type).

    OpenMetrics is written only for a client that names it, in a version known here; wildcards and
    anything unknown get the text format, as exposition formats are negotiated by all Prometheus
    client libraries. Of equal qualities the first in the header wins. The `escaping` parameter
    that Prometheus 3 sends needs no answer: every name exported here is valid in all schemes.
    """
    best: tuple[float, bool, str] = (0.0, False, TEXT_CONTENT_TYPE)
    for item in parse_list_header(accept or ""):
        media, params = parse_options_header(item)
        quality = _quality(params.get("q"))
        version = params.get("version")
        if media == _OPENMETRICS and version in (None, *_OPENMETRICS_VERSIONS):
            content_type = f"{_OPENMETRICS}; version={version or _OPENMETRICS_VERSIONS[0]}; charset=utf-8"
            candidate = (quality, True, content_type)
        elif media == "text/plain" and version in (None, "0.0.4", "1.0.0"):
            candidate = (quality, False, TEXT_CONTENT_TYPE)
        else:
            continue
        if candidate[0] > best[0]:
            best = candidate
    return best[1], best[2]


def gzip_accepted(encodings: Accept) -> bool:
    """Whether gzip may be used: accepted with q above 0 and not ranked below `identity`."""
    qualities = {value.lower(): quality for value, quality in encodings}
    gzip = next((qualities[name] for name in ("gzip", "x-gzip", "*") if name in qualities), 0.0)
    return gzip > 0 and gzip >= qualities.get("identity", 0.0)


def scrape_timeout(header: str | None, offset: float, default: float) -> float:
    """Seconds a scrape may take, from the header Prometheus sends with its own timeout.

    The offset is taken off so that the answer still travels in time. When it is half of the
    timeout or more, half of the timeout is taken off instead: ignoring the offset there would
    leave the answer no time to travel. Without the header `default` is used as it is.
    """
    if header is None:
        return default
    text = header.strip()
    seconds = float(text) if _NUMBER.fullmatch(text) else 0.0
    if seconds <= 0:
        raise BadRequest(
            f"header {TIMEOUT_HEADER}: {header[:40]!r} is not a number of seconds above 0; "
            "send for example 10 or leave the header out"
        )
    seconds = min(seconds, MAX_TIMEOUT)
    return seconds - min(offset, seconds / 2)


def collector_filter(
    collect: Sequence[str], exclude: Sequence[str], enabled: Collection[str]
) -> frozenset[str] | None:
    """The collectors that `collect[]` or `exclude[]` ask for; None when neither is given."""
    if collect and exclude:
        raise BadRequest("collect[] and exclude[] cannot be combined; use one of them")
    _known("collect[]", collect, enabled)
    _known("exclude[]", exclude, enabled)
    if collect:
        return frozenset(collect)
    if exclude:
        return frozenset(enabled) - frozenset(exclude)
    return None


def _known(argument: str, names: Iterable[str], enabled: Collection[str]) -> None:
    for name in names:
        if name not in enabled:
            raise BadRequest(
                f"{argument}: no collector {name[:80]!r} is enabled; "
                f"enabled are: {', '.join(sorted(enabled))}"
            )


def probe_target(targets: Sequence[str]) -> str:
    """The one `target` argument, checked to be host:port (IPv6 in brackets)."""
    if len(targets) != 1:
        problem = "is missing" if not targets else f"is given {len(targets)} times"
        raise BadRequest(f"argument target {problem}; give it once, as in /probe?target=node1:9413")
    target = targets[0]
    if not _is_target(target):
        raise BadRequest(
            f"argument target: {target[:280]!r} is not host:port; write for example node1:9413, "
            "192.0.2.7:9413 or [2001:db8::7]:9413"
        )
    return target


def _is_target(target: str) -> bool:
    try:
        host, _ = parse_host_port(target)
        if ":" in host:  # valid HTTP, though no runtime can be reached by it
            return ipaddress.IPv6Address(host).scope_id is None
    except ValueError:
        return False
    return _HOSTNAME.fullmatch(host) is not None
