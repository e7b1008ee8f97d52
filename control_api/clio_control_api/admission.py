"""Whether an action may begin: is the node that it would reach still the one that the user saw?

Numbers and addresses change hands: a line is put before the others of a hostfile, a name is given to
another machine. Three sources are compared: what the request says, who is a member now, and what the
runtime that answers calls itself.
"""

from __future__ import annotations

from typing import Final

from clio_client import HostInfo
from clio_client.errors import RuntimeClientError
from clio_client.membership import Member
from clio_client.questions import NodeStatus
from clio_control_api.errors import ApiError
from clio_control_api.queries import NodeQueries

IDENTIFY_S: Final = 6.0
"""How long an action waits to learn which runtime answers: to find out a generation takes up to 4.5 s."""

_UNNAMED: Final = ("", "0.0.0.0", "localhost")  # noqa: S104 - compared


class WrongNodeError(ApiError):
    """The action would reach another node than the one it was asked for."""

    status = 409


def identify(
    queries: NodeQueries, member: Member, hostname: str | None, timeout: float = IDENTIFY_S
) -> NodeStatus | RuntimeClientError:
    """The runtime that answers at a member, or why none does: such a member can be acted on all the same.

    Args:
        hostname: what the user saw the node called; None when the request does not say.

    Raises:
        WrongNodeError: the member, or the runtime, is not the node that the user saw.
    """
    found: NodeStatus | RuntimeClientError
    try:
        found = queries.status(member.address, timeout)
    except RuntimeClientError as error:
        found = error
    host = None if isinstance(found, RuntimeClientError) else found.host
    check_request(member, host, hostname)
    if host is not None:
        check_runtime(member, host)
    return found


def check_request(member: Member, host: HostInfo | None, hostname: str | None) -> None:
    """Raises `WrongNodeError` when a request means another host; names of member and runtime both count."""
    if hostname is None or hostname.lower() in (member.hostname.lower(), member.address.host.lower()):
        return
    if host is not None and _named_by(host, hostname):
        return
    raise WrongNodeError(
        f"node {member.node_id} is {member.hostname}{_also_called(member, host)} now, not {hostname}: the "
        "membership has changed since the page was shown. Load the dashboard again and choose the node anew"
    )


def check_runtime(member: Member, host: HostInfo) -> None:
    """Raises `WrongNodeError` when the runtime that answers says that it is another node.

    Its number tells. Its name may differ: a host has one for each of its networks, and SSH goes where the
    answer came from.

    A runtime without a hostfile knows neither its name nor its number, and is not contradicted.
    """
    if (host.hostname or "") in _UNNAMED[:2]:
        return
    if host.node_id in (None, member.node_id):
        return
    raise WrongNodeError(
        f"node {member.node_id} ({member.hostname}) is to be acted on, but the runtime that answers at "
        f"{member.target} says that it is node {host.node_id} ({host.hostname}). Give the exporter's "
        "settings the hostfile that the runtimes were started with, or restart them by hand with the new one"
    )


def _named_by(host: HostInfo, hostname: str | None) -> bool:
    known = {name.lower() for name in (host.hostname, host.ip_address) if name and name not in _UNNAMED}
    return hostname is not None and hostname.lower() in known


def _also_called(member: Member, host: HostInfo | None) -> str:
    name = None if host is None else host.hostname
    return f" ({name})" if name and name not in _UNNAMED and name != member.hostname else ""
