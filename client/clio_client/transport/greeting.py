"""Is a ZeroMQ server alive at this address? Asked with a plain TCP connection that sends nothing.

libzmq greets every connection at once, before it has read a byte. So the first bytes tell a living
runtime from a stopped one (connection accepted by the kernel, no greeting), from another kind of
server, and from a closed port; and no identity is shown to a runtime that may still hold an older
connection of ours.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from clio_client.errors import (
    ConnectionLostError,
    HungError,
    NotARuntimeError,
    RefusedError,
    UnreachableError,
    UnresolvableHostError,
)

_SIGNATURE_BYTES = 10


async def resolve(host: str) -> str:
    """IPv4 address of ``host``.

    Raises:
        UnresolvableHostError: the name has no IPv4 address (a runtime cannot dial back over IPv6).
    """
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UnresolvableHostError(
            f"host {host!r} has no IPv4 address ({error}). Correct the hostfile or the name service"
        ) from error
    return str(found[0][4][0])


class Greeting:
    """One pre-check connection; `wait` may be cancelled, `close` always ends it.

    Attributes:
        stage: what is being waited for; turned into the right error when time runs out.
    """

    def __init__(self, address: str, port: int) -> None:
        self.address = address
        self.port = port
        self.stage = "connect"
        self._socket: socket.socket | None = None

    async def wait(self) -> str:
        """Wait for the greeting, without a bound of its own; returns our local address.

        Raises:
            RefusedError, UnreachableError, ConnectionLostError, NotARuntimeError: as their names say.
        """
        loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        where = f"{self.address}:{self.port}"
        try:
            try:
                await loop.sock_connect(self._socket, (self.address, self.port))
            except ConnectionRefusedError as error:
                raise RefusedError(f"{where} refuses connections: no runtime is listening") from error
            except OSError as error:
                raise UnreachableError(f"{where} cannot be reached: {error.strerror or error}") from error
            self.stage = "greeting"
            received = b""
            while len(received) < _SIGNATURE_BYTES:
                try:
                    chunk = await loop.sock_recv(self._socket, _SIGNATURE_BYTES - len(received))
                except ConnectionResetError as error:
                    # So ends what waits to be accepted by a process that has just ended.
                    raise ConnectionLostError(f"{where} reset the connection before a greeting") from error
                except OSError as error:
                    raise NotARuntimeError(
                        f"{where} closed the connection: {error.strerror or error}"
                    ) from error
                if not chunk:
                    raise NotARuntimeError(f"{where} closed the connection without a ZeroMQ greeting")
                received += chunk
                if received[0] != 0xFF:
                    raise NotARuntimeError(f"{where} does not speak ZeroMQ: is the port right?")
            if received[-1] != 0x7F:
                raise NotARuntimeError(f"{where} does not speak ZeroMQ: is the port right?")
            return str(self._socket.getsockname()[0])
        finally:
            self.close()

    def timeout_error(self) -> UnreachableError | HungError:
        """What it means when time ran out in the current stage."""
        where = f"{self.address}:{self.port}"
        if self.stage == "connect":
            return UnreachableError(f"{where} does not answer to TCP: host down, or a firewall drops")
        return HungError(
            f"{where} accepts connections but sends no ZeroMQ greeting: stopped, hung, or not a runtime"
        )

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
