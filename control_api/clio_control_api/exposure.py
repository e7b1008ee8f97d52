"""Who is let in without a token, as the settings have it. Pure functions."""

from __future__ import annotations

import enum
from typing import Final

from clio_client.config.errors import ConfigError
from clio_control_api.origins import is_loopback
from clio_control_api.settings import Settings

_FORWARDED: Final = frozenset({"forwarded", "via", "x-real-ip", "x-client-ip"})


class Auth(enum.Enum):
    """What needs a token."""

    NONE = "none"
    """Nothing: whoever reaches the service is an operator."""
    ACTIONS = "actions"
    """Actions: whoever reaches the service may read."""
    ALL = "all"
    """Everything but health, the API's description and the log-in."""


def auth_of(settings: Settings) -> Auth:
    """What needs a token.

    Raises:
        ConfigError: strangers could act, or read without having been let in.
    """
    local = is_loopback(settings.host)
    proxies = [name for name in ("external_url", "proxy_hops", "trusted_proxies") if getattr(settings, name)]
    if not local and settings.tokens_file is None:
        raise ConfigError(
            "--host",
            f"{settings.host or 'all addresses'} can be reached by others and there are no tokens",
            "Listen on 127.0.0.1, or make a token (clio-control-api token NAME --role operator) and set "
            "--tokens-file",
        )
    if settings.auth is None:
        return Auth.ALL if settings.tokens_file or proxies or not local else Auth.ACTIONS
    auth = Auth(settings.auth)
    if auth is Auth.NONE:
        proxies += ["allowed_hosts"] if settings.allowed_hosts else []
        proxies += ["tokens_file"] if settings.tokens_file else []
    if auth is not Auth.ALL and (proxies or not local):
        others = " and ".join(proxies) if proxies else f"host {settings.host}"
        raise ConfigError(
            "auth",
            f"{auth.value} does not go with {others}: "
            + ("strangers could act" if auth is Auth.NONE else "strangers could read"),
            "Remove auth, so that a token is needed, or the other setting",
        )
    return auth


def forwarding_header(names: list[str]) -> str | None:
    """The first of a request's header names that a proxy has added; None when there is none."""
    return next(
        (name for name in names if name.lower() in _FORWARDED or name.lower().startswith("x-forwarded-")),
        None,
    )
