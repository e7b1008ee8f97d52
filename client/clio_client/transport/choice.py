"""The transport that the settings ask for."""

from __future__ import annotations

from clio_client.config.settings import RuntimeSettings
from clio_client.transport.binding import BindingTransport, import_binding
from clio_client.transport.interface import Transport
from clio_client.transport.zeromq import ZmqTransport


def check_transport(runtime: RuntimeSettings) -> None:
    """Find out at the start what cannot be had.

    Raises:
        TransportUnavailableError: the transport is not installed.
    """
    if runtime.transport == "binding":
        import_binding()


def make_transport(runtime: RuntimeSettings, role: str) -> Transport:
    """The transport the settings ask for; to be called on the client's event loop.

    ``role`` names the program in the identities it shows to runtimes.

    Raises:
        TransportUnavailableError: it cannot be used on this machine.
    """
    if runtime.transport == "binding":
        return BindingTransport()
    return ZmqTransport(role=role, reply_port=runtime.reply_port, max_in_flight=runtime.max_in_flight)
