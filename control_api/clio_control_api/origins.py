"""Whether a browser was led here by another site. Pure functions over request headers.

Browsers attach what identifies a user (an address on loopback, a cookie) to requests that other sites
cause. `Sec-Fetch-Site` and `Origin` tell; clients that are no browsers send neither.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit


def host_of(authority: str) -> str:
    """The host of `host`, `host:port` or `[v6]:port`, in lower case; '' when it is none."""
    try:
        return (urlsplit(f"//{authority}").hostname or "").lower()
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine itself, by its own meaning and not by DNS."""
    if host.lower() in ("localhost", "localhost.") or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def own_origin(scheme: str, authority: str) -> str:
    """`scheme://host[:port]` as a browser writes it: lower case, without the scheme's default port."""
    parts = urlsplit(f"{scheme}://{authority}".lower())
    default = {"http": 80, "https": 443}.get(parts.scheme)
    try:
        port = parts.port
    except ValueError:
        port = None
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" if port in (None, default) else f"{parts.scheme}://{host}:{port}"


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
