"""Loopback addresses of their own for the nodes of a local cluster.

A 2.3 runtime finds itself in the hostfile by comparing the entries with the addresses of its
interfaces, so 127.x.y.z only works when it is really configured on `lo`. That takes root or
CAP_NET_ADMIN; without it every node uses 127.0.0.1 and ports tell them apart.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

FALLBACK = "127.0.0.1"
_PREFIX_LENGTH = 8
_SCOPE_HOST = 254  # RT_SCOPE_HOST, rtnetlink(7)
_LABEL = "lo:clio"
"""Tells the addresses that we have added, also before we were killed, from anybody else's."""


def cluster_address(base_port: int, index: int) -> str:
    """Return the loopback address of node `index` in the cluster at `base_port`.

    The port's digits are in it, so that clusters on one machine differ: 9413 gives 127.94.13.1
    for node 0, 127.94.13.2 for node 1. `index` is 0 to 253.
    """
    if not 0 <= index <= 253:
        raise ValueError(f"node index {index} is not in 0..253")
    return f"127.{base_port // 100 % 256}.{base_port % 100}.{index + 1}"


def configured() -> frozenset[str]:
    """Return the IPv4 addresses that are configured on `lo`."""
    with IPRoute() as route:
        return frozenset(_addresses(route))


def added_by_us() -> frozenset[str]:
    """Return the addresses on `lo` that `add` has added, in whichever process."""
    with IPRoute() as route:
        return frozenset(_addresses(route, _LABEL))


def add(addresses: Iterable[str]) -> tuple[str, ...]:
    """Configure `addresses` on `lo`; return those that were not there before.

    Raises PermissionError without CAP_NET_ADMIN, after taking back what was added.
    """
    added: list[str] = []
    with IPRoute() as route:
        index = _loopback_index()
        for address in addresses:
            try:
                # Host scope also keeps the library from adding a broadcast address, which lo refuses.
                route.addr(
                    "add", index=index, address=address, prefixlen=_PREFIX_LENGTH, scope=_SCOPE_HOST,
                    label=_LABEL,
                )  # fmt: skip
            except NetlinkError as error:
                if error.code == errno.EEXIST:
                    continue
                for earlier in added:
                    _delete(route, index, earlier)
                if error.code in (errno.EPERM, errno.EACCES):
                    raise PermissionError(
                        errno.EPERM, f"adding {address} to lo needs CAP_NET_ADMIN"
                    ) from None
                raise OSError(error.code, f"adding {address} to lo failed: {error}") from error
            added.append(address)
    return tuple(added)


def remove(addresses: Iterable[str]) -> None:
    """Take `addresses` off `lo`; one that is not there (any more) is fine."""
    with IPRoute() as route:
        index = _loopback_index()
        for address in addresses:
            _delete(route, index, address)


def _delete(route: IPRoute, index: int, address: str) -> None:
    try:
        route.addr("del", index=index, address=address, prefixlen=_PREFIX_LENGTH)
    except NetlinkError as error:
        if error.code != errno.EADDRNOTAVAIL:
            raise OSError(error.code, f"removing {address} from lo failed: {error}") from error


def _loopback_index() -> int:
    return socket.if_nametoindex("lo")


def _addresses(route: IPRoute, label: str | None = None) -> list[str]:
    """Addresses of the loopback interface, all or those with this label."""
    index = _loopback_index()
    return [
        str(message.get_attr("IFA_ADDRESS"))
        for message in route.get_addr(family=socket.AF_INET)
        if message["index"] == index and label in (None, message.get_attr("IFA_LABEL"))
    ]
