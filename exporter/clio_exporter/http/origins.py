"""Whether a request was meant for this service, or led here by a web page. Pure functions over headers."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

FOREIGN_HOST = "the Host is not a name of this service; see --web.allowed-host"


def host_allowed(authority: str, names: Collection[str]) -> bool:
    """Whether the Host header is an address, localhost or one of `names` (lower case, without port).

    Addresses are safe: a page whose owner makes its name lead here (DNS rebinding) asks by that name.
    """
    try:
        host = (urlsplit(f"//{authority}").hostname or "").removesuffix(".")
    except ValueError:
        return False
    if host == "localhost" or host in names:
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def own_host(authority: str, names: Collection[str]) -> bool:
    """Whether the Host header is surely ours: without `names` this host's own count, as the kernel has them.

    The resolver could be made to say anything.
    """
    own = socket.gethostname().lower()
    return host_allowed(authority, names or {own, own.partition(".")[0]})


def foreign_request(headers: Mapping[str, str], names: Collection[str]) -> str | None:
    """Why a request that changes something is refused as another site's; None when it is not."""
    authority = headers.get("Host", "")
    if not own_host(authority, names):
        return FOREIGN_HOST
    origin = headers.get("Origin")
    if origin is not None and origin.lower() not in (
        f"http://{authority}".lower(),
        f"https://{authority}".lower(),
    ):
        return "the request comes from another site (Origin)"
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return "the request comes from another site (Sec-Fetch-Site)"
    return None
