"""What proxies in front say of a request: where it came from, and by which scheme and name.

Each proxy appends the address it was asked by to `X-Forwarded-For`. Counted from the end, as many values as
there are proxies are theirs; what stands before is whatever the client liked to send.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from clio_control_api.origins import parse_authority

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_SCHEMES: Final = ("http", "https")


class ForwardedMiddleware:
    """Gives the application client, scheme and host as `hops` proxies report them.

    A request that did not come through all of them, or not from the `trusted` ones where some are named,
    keeps the address it came from, and nothing it says of itself is believed.
    """

    def __init__(self, app: WsgiApp, hops: int, trusted: Sequence[Network] = ()) -> None:
        self._app = app
        self._hops = hops
        self._trusted = tuple(trusted)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        client = client_of(
            str(environ.get("REMOTE_ADDR", "")),
            environ.get("HTTP_X_FORWARDED_FOR", ""),
            self._hops,
            self._trusted,
        )
        if client is not None:
            environ["REMOTE_ADDR"] = client
            scheme = self._value(environ, "HTTP_X_FORWARDED_PROTO").lower()
            if scheme in _SCHEMES:
                environ["wsgi.url_scheme"] = scheme
            host = self._value(environ, "HTTP_X_FORWARDED_HOST")
            if parse_authority(host) is not None:
                environ["HTTP_HOST"] = host
        return self._app(environ, start_response)

    def _value(self, environ: dict[str, Any], name: str) -> str:
        """What the first of our proxies said; one alone when the last has put its own over the others'."""
        values = _split(environ.get(name, ""))
        return values[-min(self._hops, len(values))] if values else ""


def client_of(peer: str, forwarded_for: str, hops: int, trusted: Sequence[Network] = ()) -> str | None:
    """The address of a client behind `hops` proxies; None when they do not tell one.

    Args:
        peer: who connected.
        forwarded_for: the header `X-Forwarded-For`, where several have been joined by commas.
        trusted: the proxies' networks; none: whoever connects is taken for one.
    """
    values = _split(forwarded_for)
    if hops < 1 or len(values) < hops:
        return None
    chain = [_address(text) for text in (*values[-hops:], peer)]
    client, proxies = chain[0], chain[1:]
    if trusted and not all(proxy is not None and any(proxy in net for net in trusted) for proxy in proxies):
        return None
    return None if client is None else str(client)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text.strip() else []


def _address(text: str) -> Address | None:
    """An address, alone or with a port (`a.b.c.d:port`, `[v6]`, `[v6]:port`); None for anything else."""
    if text.startswith("[") or text.count(":") == 1:
        parsed = parse_authority(text)
        text = "" if parsed is None else parsed[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)
    return found if mapped is None else mapped
