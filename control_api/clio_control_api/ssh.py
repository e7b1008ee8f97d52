"""SSH by paramiko: connect within a deadline, check the host key, authenticate, run one command.

Where to connect is said by `ssh_config`, which key a host must show by `known_hosts`, and which keys it is
shown by `ssh_keys`. Every wait has a bound; leaving `connection` closes sockets and ends paramiko's thread.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import paramiko
from paramiko.ssh_exception import IncompatiblePeer, SSHException

from clio_client.address import port_number, split_host_port
from clio_control_api.known_hosts import HostName, KnownHosts
from clio_control_api.settings import SshSettings
from clio_control_api.ssh_config import Destination, destination
from clio_control_api.ssh_errors import (
    ConnectTimeoutError,
    RefusedError,
    SshConfigError,
    SshError,
    UnresolvableError,
    text_of,
)
from clio_control_api.ssh_keys import AUTH_S, PASSPHRASE, Keys

OUTPUT_LIMIT: Final = 64 * 1024
"""How much of each of stdout and stderr is kept: the last bytes."""

_MAX_JUMPS: Final = 4
_END_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended. `returncode` is None when it did not end within its time."""

    returncode: int | None
    stdout: bytes
    stderr: bytes
    omitted: int


@contextlib.contextmanager
def connection(host: str, settings: SshSettings, known: KnownHosts) -> Iterator[Connection]:
    """A logged-in connection; raises `SshError`. Takes `connect_timeout`, plus 10 s at most to log in."""
    with contextlib.ExitStack() as stack:
        opening = _Opening(known, stack, settings.connect_timeout)
        yield Connection(opening.client(host, settings, depth=0), host)


class Connection:
    """A logged-in connection that runs commands."""

    def __init__(self, client: _Client, host: str) -> None:
        self._transport: Any = client.get_transport()
        self._host = host

    def run(self, command: str, script: str, timeout: float) -> CommandResult:
        """Run `command` with `script` on its standard input, which is held open until it ends.

        Closing the channel ends the input; the script then ends what it runs. Raises `SshError`.
        """
        deadline = time.monotonic() + timeout
        try:
            channel = self._transport.open_session(timeout=min(timeout, 10.0))
        except (SSHException, EOFError, OSError) as error:
            raise SshError(f"{self._host} does not open a session: {text_of(error)}") from None
        try:
            channel.settimeout(min(timeout, 10.0))
            channel.exec_command(command)
            channel.sendall(script.encode())
            return self._collect(channel, deadline)
        except TimeoutError:
            raise ConnectTimeoutError(f"{self._host} accepts the connection but takes no command") from None
        except (SSHException, EOFError, OSError) as error:
            raise SshError(f"{self._host}: the connection broke: {text_of(error)}") from None
        finally:
            channel.close()

    def _collect(self, channel: Any, deadline: float) -> CommandResult:
        out, err = _Tail(OUTPUT_LIMIT), _Tail(OUTPUT_LIMIT)
        poller = select.poll()
        poller.register(channel.fileno(), select.POLLIN)
        while time.monotonic() < deadline:
            ready = False
            if channel.recv_ready():
                out.add(channel.recv(65536))
                ready = True
            if channel.recv_stderr_ready():
                err.add(channel.recv_stderr(65536))
                ready = True
            if ready:
                continue
            if channel.eof_received or channel.closed:
                break
            poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
        channel.status_event.wait(max(0.0, deadline - time.monotonic()))
        omitted = out.omitted + err.omitted
        if not channel.exit_status_ready():
            return CommandResult(None, bytes(out.kept), bytes(err.kept), omitted)
        code = int(channel.recv_exit_status())
        if code == -1:
            raise SshError(f"{self._host}: the connection broke, or the command was killed, before it ended")
        return CommandResult(code, bytes(out.kept), bytes(err.kept), omitted)


class _Client(paramiko.SSHClient):  # type: ignore[misc]
    """Paramiko's client that goes by OpenSSH's known_hosts, and whose end is awaited."""

    def __init__(self, known: KnownHosts, policy: str, name: HostName) -> None:
        super().__init__()
        self._known = known
        self._how = policy
        self._name = name
        self.set_missing_host_key_policy(_Policy(known, policy, name))

    def log_in(self, where: Destination, settings: SshSettings, sock: Any, seconds: float) -> None:
        """Greet, check the host's key, authenticate; errors are those of paramiko and `SshError`."""
        self.connect(
            # The user is for the strategy; without one paramiko looks up its own, which may have no name.
            where.host, where.port, where.user, sock=sock, timeout=seconds, banner_timeout=seconds,
            auth_timeout=AUTH_S, transport_factory=self._transport_of, auth_strategy=Keys(where, settings),
        )  # fmt: skip

    def _transport_of(self, sock: Any, **options: Any) -> paramiko.Transport:
        """Asks the host for a key of a type that is known, where one is."""
        transport = paramiko.Transport(sock, **options)
        transport.daemon = True
        if self._how != "off":
            offered = transport.get_security_options()
            wanted: list[str] = []
            for kind in self._known.kinds_of(self._name):
                wanted += ["rsa-sha2-512", "rsa-sha2-256"] if kind == "ssh-rsa" else [kind]
            first = [kind for kind in wanted if kind in offered.key_types]
            offered.key_types = [*first, *(kind for kind in offered.key_types if kind not in first)]
        return transport

    def close(self) -> None:
        transport = self.get_transport()
        super().close()
        if transport is not None:
            transport.join(5.0)


class _Policy(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
    """Asked about every key, for the client itself is told of none."""

    def __init__(self, known: KnownHosts, policy: str, name: HostName) -> None:
        self._known = known
        self._policy = policy
        self._name = name

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:  # noqa: ARG002
        if self._policy != "off":
            self._known.check(self._name, key, self._policy)


class _Opening:
    """Opens one connection, with those to its jump hosts, before a deadline; `stack` closes them."""

    def __init__(self, known: KnownHosts, stack: contextlib.ExitStack, timeout: float) -> None:
        self._known = known
        self._stack = stack
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout

    @property
    def _left(self) -> float:
        return max(0.1, self._deadline - time.monotonic())

    def client(self, host: str, settings: SshSettings, depth: int, through: _Client | None = None) -> _Client:
        """A client that is logged in at a host; `through` a jump host, else as ~/.ssh/config says."""
        where = destination(host, settings)
        said = ""
        process: _Process | None = None
        if through is not None:
            sock = self._tunnel(through, where)
        elif where.jumps:
            if depth >= _MAX_JUMPS:
                raise SshConfigError(f"{host}: more than {_MAX_JUMPS} jump hosts in a row")
            sock = self._tunnel(self._jump(where, settings, depth), where)
        elif where.command is not None:
            process = self._stack.enter_context(_Process(where.command))
            sock = process.sock
        else:
            sock = self._dial(where)
            self._stack.callback(sock.close)
        client = _Client(self._known, settings.host_keys, where.name)
        self._stack.callback(client.close)
        try:
            client.log_in(where, settings, sock, self._left)
        except IncompatiblePeer as error:
            raise SshError(f"{where.where} has no algorithm in common with this client: {error}") from None
        except (SSHException, EOFError, OSError) as error:
            said = "" if process is None else process.last_words()
            raise self._handshake_error(where, error, said) from None
        return client

    def _jump(self, where: Destination, settings: SshSettings, depth: int) -> _Client | None:
        """The last of the jump hosts, each through the one before it."""
        client: _Client | None = None
        for hop in where.jumps:
            user, _, authority = hop.removeprefix("ssh://").rpartition("@")
            try:
                name, port_text = split_host_port(authority)
            except ValueError:
                name, port_text = "", ""
            port = port_number(port_text or "")
            if not name or (port is None and port_text):
                raise SshConfigError(f"ProxyJump {hop!a} is not [user@]host[:port]")
            # The same keys and policy, but user and port are its own.
            own = replace(settings, user=user or None, port=port, host=None)
            client = self.client(name, own, depth + 1, client)
        return client

    def _tunnel(self, through: _Client | None, where: Destination) -> Any:
        transport: Any = None if through is None else through.get_transport()
        try:
            return transport.open_channel(
                "direct-tcpip", (where.host, where.port), ("127.0.0.1", 0), timeout=self._left
            )
        except (SSHException, EOFError, OSError) as error:
            raise RefusedError(f"the jump host cannot reach {where.where}: {text_of(error)}") from None

    def _dial(self, where: Destination) -> socket.socket:
        """A TCP connection to the first address that takes one before the deadline."""
        failure: OSError | None = None
        for family, kind, protocol, _name, address in self._resolve(where):
            sock = socket.socket(family, kind, protocol)
            sock.settimeout(self._left)
            try:
                sock.connect(address)
            except OSError as error:
                sock.close()
                failure = error
            else:
                return sock
        if isinstance(failure, ConnectionRefusedError):
            raise RefusedError(f"{where.where} refuses: is sshd running there?") from None
        if failure is None or isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(
                f"{where.where} did not answer within {self._timeout:g} s: is it up and reachable?"
            ) from None
        raise ConnectTimeoutError(f"{where.where} cannot be reached: {failure.strerror or failure}") from None

    def _resolve(self, where: Destination) -> list[Any]:
        """Addresses of the host. The name service has no deadline of its own, so a thread waits for it."""
        found: queue.SimpleQueue[list[Any] | OSError] = queue.SimpleQueue()

        def look_up() -> None:
            try:
                found.put(list(socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)))
            except (OSError, UnicodeError) as error:
                found.put(error if isinstance(error, OSError) else OSError(str(error)))

        threading.Thread(target=look_up, name="resolve", daemon=True).start()
        try:
            answer = found.get(timeout=self._left)
        except queue.Empty:
            raise UnresolvableError(f"the name service did not answer in time for {where.host}") from None
        if isinstance(answer, OSError):
            raise UnresolvableError(
                f"the host name {where.host} cannot be resolved: {answer.strerror or answer}; correct it or "
                "set ssh host"
            )
        return answer

    def _handshake_error(self, where: Destination, error: Exception, said: str) -> SshError:
        left = self._deadline - time.monotonic()
        if said:
            return SshError(f"the ProxyCommand for {where.where} failed: {said}")
        if "banner" in str(error) and left > 0.2:
            return SshError(f"{where.where} closed the connection without an SSH greeting")
        if left <= 0.05 or "banner" in str(error):
            return ConnectTimeoutError(
                f"{where.where} accepts connections but its sshd did not answer within {self._timeout:g} s"
            )
        return SshError(f"{where.where}: the SSH handshake failed: {text_of(error)}")


class _Process:
    """A ProxyCommand, run by the user's shell as ssh_config(5) says; `sock` is its input and output."""

    def __init__(self, command: str) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self.sock, other = socket.socketpair()
        shell = os.environ.get("SHELL") or "/bin/sh"
        environment = {name: value for name, value in os.environ.items() if name != PASSPHRASE}
        try:
            self._process = subprocess.Popen(
                [shell, "-c", f"exec {command}"], stdin=other.fileno(), stdout=other.fileno(),
                stderr=self._errors.fileno(),
                env=environment, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self.sock.close()
            self._errors.close()
            raise SshConfigError(f"the shell {shell} cannot run the ProxyCommand: {error.strerror}") from None
        finally:
            other.close()

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        """End it and whatever it has started in its session."""
        self.sock.close()
        for number in (15, 9):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
                break
        self._errors.close()

    def last_words(self) -> str:
        """The last line of its standard error, if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(0.5)
            self._errors.seek(0)
            lines = self._errors.read(65536).decode("utf-8", "replace").strip().splitlines()
            return lines[-1][:300] if lines else f"exit code {code}"
        return ""


class _Tail:
    """The last `limit` bytes of a stream."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.kept = bytearray()
        self.omitted = 0

    def add(self, data: bytes) -> None:
        self.kept += data
        excess = len(self.kept) - self._limit
        if excess > 0:
            del self.kept[:excess]
            self.omitted += excess


__all__: Sequence[str] = (
    "CommandResult", "ConnectTimeoutError", "Connection", "KnownHosts", "SshError", "connection",
    "destination",
)  # fmt: skip
