"""Whether a browser was led here by another site. Pure functions over request headers.

Browsers attach what identifies a user (an address on loopback, a cookie) to requests that other sites
cause. `Sec-Fetch-Site` and `Origin` tell; clients that are no browsers send neither.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from typing import Final

_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::([0-9]{0,5}))?", re.ASCII)
_HIGHEST_PORT: Final = 65535


def parse_authority(text: str) -> tuple[str, int | None] | None:
    """Host (lower case, no brackets) and port of `host`, `host:port` or `[v6]:port`; None: malformed."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    port = int(match[3]) if match[3] else None
    if port is not None and port > _HIGHEST_PORT:
        return None
    if match[1] is None:
        return match[2].lower(), port
    try:
        return str(ipaddress.IPv6Address(match[1])), port
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine itself, by its own meaning and not by DNS."""
    if host.lower() in ("localhost", "localhost.") or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def own_origin(scheme: str, authority: str) -> str | None:
    """`scheme://host[:port]` as a browser writes it: lower case, without the scheme's default port.

    None when the authority is malformed.
    """
    parsed = parse_authority(authority)
    if parsed is None:
        return None
    host, port = parsed
    host = f"[{host}]" if ":" in host else host
    scheme = scheme.lower()
    default = {"http": 80, "https": 443}.get(scheme)
    return f"{scheme}://{host}" if port in (None, default) else f"{scheme}://{host}:{port}"


def cross_site(
    method: str, headers: Mapping[str, str], own: Collection[str], allowed: Collection[str]
) -> str | None:
    """Why a request is refused as caused by another site; None when it is not.

    `own` are this service's origins, `allowed` those of other sites that may call it. A plain navigation
    (a link, as Grafana's data links are) may come from anywhere: it shows a page to the user only.
    """
    origin = headers.get("Origin", "").lower()
    site = headers.get("Sec-Fetch-Site", "").lower()
    if origin and origin in allowed:
        return None
    if origin and origin not in own:
        return f"the request comes from {origin[:100]!a}, which is not among allowed_origins"
    if site in ("", "none", "same-origin"):
        return None
    navigation = (
        method in ("GET", "HEAD")
        and headers.get("Sec-Fetch-Mode", "").lower() == "navigate"
        and headers.get("Sec-Fetch-Dest", "document").lower() == "document"
    )
    if navigation:
        return None
    if origin and site == "same-site":
        # The browser compares schemes and hosts too, and the Origin is ours.
        return None
    return f"the browser says that another site caused the request (Sec-Fetch-Site: {site[:20]})"
