"""SSH by paramiko: connect within a deadline, check the host key, authenticate, run one command.

~/.ssh/config is read for HostName, User, Port, IdentityFile, IdentitiesOnly and ProxyJump. Every wait
has a bound; leaving `Connection` closes sockets and ends paramiko's thread.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import hashlib
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import paramiko
from paramiko.ssh_exception import (
    AuthenticationException,
    ConfigParseError,
    IncompatiblePeer,
    PasswordRequiredException,
    SSHException,
)

from clio_client.address import port_number, split_host_port
from clio_control_api.settings import ENV_PREFIX, SshSettings
from clio_web.logs import get_logger

OUTPUT_LIMIT: Final = 64 * 1024
"""How much of each of stdout and stderr is kept: the last bytes."""

_AUTH_SECONDS: Final = 10.0
_DEFAULT_KEYS: Final = ("id_ed25519", "id_ecdsa", "id_rsa")
_MAX_KEYS: Final = 6
_MAX_JUMPS: Final = 4

_log = get_logger(__name__)


class SshError(Exception):
    """No command could be run on the node. `reason` is a short stable word, `str()` says what to do."""

    reason: ClassVar[str] = "ssh"


class UnresolvableError(SshError):
    """The host's name has no address."""

    reason = "unresolvable"


class RefusedError(SshError):
    """Nothing listens on the SSH port."""

    reason = "refused"


class ConnectTimeoutError(SshError):
    """The host, or its sshd, did not answer in time."""

    reason = "timeout"


class HostKeyError(SshError):
    """The host's key is not the known one, or not known where it has to be."""

    reason = "host_key"


class LogInError(SshError):
    """The node does not let this user in with the keys there are."""

    reason = "authentication"


class PassphraseError(SshError):
    """A key is encrypted and its passphrase is missing or wrong."""

    reason = "passphrase"


class SshConfigError(SshError):
    """Key files or ~/.ssh/config cannot be used."""

    reason = "configuration"


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended. `returncode` is None when it did not end within its time."""

    returncode: int | None
    stdout: bytes
    stderr: bytes
    omitted: int


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to connect, once ~/.ssh/config has had its say."""

    host: str
    port: int
    user: str
    identities: tuple[Path, ...]
    identities_only: bool
    jumps: tuple[str, ...]

    @property
    def known_as(self) -> str:
        """The name in known_hosts."""
        return self.host if self.port == 22 else f"[{self.host}]:{self.port}"


class KnownHosts:
    """A known_hosts file of our own. Thread-safe; new keys are appended, so that processes can share it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()

    def keys_of(self, name: str) -> dict[str, Any]:
        """Known keys of a host by key type."""
        with self._lock:
            found = self._read().lookup(name)
        return {} if found is None else {kind: found[kind] for kind in found.keys()}  # noqa: SIM118

    def add(self, name: str, key: Any) -> None:
        """Remember a key, unless the host has become known meanwhile; then it must be that one.

        Raises:
            HostKeyError: it is another, or the file cannot be written.
        """
        if self._path is None:
            return
        with self._lock:
            known = self._read().lookup(name)
            if known is not None:
                if known.get(key.get_name()) != key:
                    raise HostKeyError(changed(name, key, self._path))
                return
            line = f"{name} {key.get_name()} {key.get_base64()}\n".encode()
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.write(descriptor, line)
                finally:
                    os.close(descriptor)
            except OSError as error:
                raise HostKeyError(
                    f"the key of {name} cannot be remembered in {self._path}: {error.strerror}; "
                    "give the service's user the permission"
                ) from None
        _log.info("host key accepted on first contact", host=name, fingerprint=fingerprint(key))

    def _read(self) -> Any:
        keys = paramiko.HostKeys()
        if self._path is not None and self._path.exists():
            try:
                keys.load(str(self._path))
            except (OSError, SSHException) as error:
                raise HostKeyError(f"known hosts file {self._path} cannot be read: {error}") from None
        return keys


class HostKeyChecker:
    """The policy of one node: accept-new, strict or off."""

    def __init__(self, policy: str, known: KnownHosts, path: Path | None) -> None:
        self._policy = policy
        self._known = known
        self._path = path

    def prefer(self, name: str, transport: Any) -> None:
        """Ask the server for a key of the type that is known, where one is."""
        if self._policy == "off":
            return
        known = self._known.keys_of(name)
        options = transport.get_security_options()
        wanted = []
        for kind in known:
            wanted += ["rsa-sha2-512", "rsa-sha2-256"] if kind == "ssh-rsa" else [kind]
        first = [kind for kind in wanted if kind in options.key_types]
        if first:
            options.key_types = [*first, *(k for k in options.key_types if k not in first)]

    def check(self, name: str, key: Any) -> None:
        """Raises `HostKeyError` unless the policy accepts the server's key."""
        if self._policy == "off":
            return
        known = self._known.keys_of(name)
        if not known:
            if self._policy == "strict":
                raise HostKeyError(
                    f"the host key of {name} ({fingerprint(key)}) is not known and host_keys is strict; "
                    f"compare it with the node's, then add it to {self._path} (ssh-keyscan prints the line)"
                )
            self._known.add(name, key)
        elif known.get(key.get_name()) != key:
            raise HostKeyError(changed(name, key, self._path))


def changed(name: str, key: Any, path: Path | None) -> str:
    """The message for a host that shows another key than the known one."""
    return (
        f"the host key of {name} has changed (now {fingerprint(key)}): somebody may be in the middle, or the "
        f"node was installed anew; if so, remove its line from {path}"
    )


def fingerprint(key: Any) -> str:
    """A key's fingerprint as OpenSSH shows it."""
    digest = hashlib.sha256(key.asbytes()).digest()
    return f"{key.get_name()} SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def destination(host: str, settings: SshSettings) -> Destination:
    """Combine our settings with ~/.ssh/config; ours win.

    Raises:
        SshConfigError: the file cannot be used, or asks for what is not supported.
    """
    found = _lookup(host, settings.config_file)
    port = settings.port or int(found.get("port", 22))
    user = settings.user or found.get("user") or _own_name()
    if settings.key_file is not None:
        identities: tuple[Path, ...] = (settings.key_file,)
    else:
        identities = tuple(Path(text).expanduser() for text in found.get("identityfile", ()))
    jumps = () if found.get("proxyjump", "none") == "none" else tuple(found["proxyjump"].split(","))
    if "proxycommand" in found and found["proxycommand"] != "none" and not jumps:
        raise SshConfigError(
            f"{settings.config_file} has a ProxyCommand for {host}, which is not supported; use ProxyJump"
        )
    return Destination(
        host=found.get("hostname", host),
        port=port,
        user=user,
        identities=identities,
        identities_only=settings.key_file is not None or found.get("identitiesonly", "no") == "yes",
        jumps=tuple(jump.strip() for jump in jumps),
    )


@contextlib.contextmanager
def connection(host: str, settings: SshSettings, known: KnownHosts) -> Iterator[Connection]:
    """A logged-in connection; raises `SshError`. Takes `connect_timeout`, plus 10 s at most to log in."""
    with contextlib.ExitStack() as stack:
        deadline = time.monotonic() + settings.connect_timeout
        transport = _open(host, settings, known, deadline, stack, depth=0)
        yield Connection(transport, host)


class Connection:
    """A logged-in connection that runs commands."""

    def __init__(self, transport: Any, host: str) -> None:
        self._transport = transport
        self._host = host

    def run(self, command: str, script: str, timeout: float) -> CommandResult:
        """Run `command` with `script` on its standard input, which is held open until it ends.

        Closing the channel ends the input; the script then ends what it runs. Raises `SshError`.
        """
        deadline = time.monotonic() + timeout
        try:
            channel = self._transport.open_session(timeout=min(timeout, 10.0))
        except (SSHException, EOFError, OSError) as error:
            raise SshError(f"{self._host} does not open a session: {_text(error)}") from None
        try:
            channel.settimeout(min(timeout, 10.0))
            channel.exec_command(command)
            channel.sendall(script.encode())
            return self._collect(channel, deadline)
        except TimeoutError:
            raise ConnectTimeoutError(f"{self._host} accepts the connection but takes no command") from None
        except (SSHException, EOFError, OSError) as error:
            raise SshError(f"{self._host}: the connection broke: {_text(error)}") from None
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


def _open(
    host: str,
    settings: SshSettings,
    known: KnownHosts,
    deadline: float,
    stack: contextlib.ExitStack,
    depth: int,
) -> Any:
    where = destination(host, settings)
    if where.jumps and depth > _MAX_JUMPS:
        raise SshConfigError(f"{host}: more than {_MAX_JUMPS} jump hosts in a row")
    if where.jumps:
        sock = _through(where, settings, known, deadline, stack, depth)
    else:
        sock = _dial(where, deadline, settings.connect_timeout)
        stack.callback(sock.close)
    transport = paramiko.Transport(sock)
    stack.callback(_end, transport)
    transport.daemon = True
    left = max(0.1, deadline - time.monotonic())
    transport.banner_timeout = left
    transport.auth_timeout = _AUTH_SECONDS
    checker = HostKeyChecker(settings.host_keys, known, settings.known_hosts_file)
    checker.prefer(where.known_as, transport)
    try:
        transport.start_client(timeout=left)
        key = transport.get_remote_server_key()
    except IncompatiblePeer as error:
        raise SshError(f"{where.known_as} has no algorithm in common with this client: {error}") from None
    except (SSHException, EOFError, OSError) as error:
        raise _handshake_error(where, error, deadline, settings.connect_timeout) from None
    checker.check(where.known_as, key)
    _log_in(transport, where, settings)
    return transport


def _dial(where: Destination, deadline: float, timeout: float) -> socket.socket:
    """A TCP connection to the first address that takes one before the deadline."""
    failure: OSError | None = None
    for family, kind, protocol, _name, address in _resolve(where, deadline):
        sock = socket.socket(family, kind, protocol)
        sock.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    if isinstance(failure, ConnectionRefusedError):
        raise RefusedError(f"{where.host} port {where.port} refuses: is sshd running there?") from None
    if failure is None or isinstance(failure, TimeoutError):
        raise ConnectTimeoutError(
            f"{where.host} port {where.port} did not answer within {timeout:g} s: is it up and reachable?"
        ) from None
    raise ConnectTimeoutError(
        f"{where.host} port {where.port} cannot be reached: {failure.strerror or failure}"
    ) from None


def _resolve(where: Destination, deadline: float) -> list[Any]:
    """Addresses of the host. The name service has no deadline of its own, so a thread waits for it."""
    found: queue.SimpleQueue[list[Any] | OSError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found.put(list(socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)))
        except (OSError, UnicodeError) as error:
            found.put(error if isinstance(error, OSError) else OSError(str(error)))

    threading.Thread(target=look_up, name="resolve", daemon=True).start()
    try:
        answer = found.get(timeout=max(0.1, deadline - time.monotonic()))
    except queue.Empty:
        raise UnresolvableError(f"the name service did not answer in time for {where.host}") from None
    if isinstance(answer, OSError):
        raise UnresolvableError(
            f"the host name {where.host} cannot be resolved: {answer.strerror or answer}; correct it or set "
            "ssh host"
        )
    return answer


def _through(
    where: Destination,
    settings: SshSettings,
    known: KnownHosts,
    deadline: float,
    stack: contextlib.ExitStack,
    depth: int,
) -> Any:
    """A channel to the destination through its jump hosts."""
    transport = None
    for hop, following in zip(where.jumps, [*where.jumps[1:], None], strict=True):
        user, _, authority = hop.rpartition("@")
        try:
            name, port_text = split_host_port(authority)
        except ValueError:
            name, port_text = "", ""
        port = port_number(port_text or "")
        if not name or (port is None and port_text):
            raise SshConfigError(f"ProxyJump {hop!a} is not [user@]host[:port]")
        own = _for_jump(settings, user or None, port)
        if transport is None:
            transport = _open(name, own, known, deadline, stack, depth + 1)
        else:
            transport = _over(transport, name, own, known, deadline, stack)
        if following is None:
            break
    return _tunnel(transport, where.host, where.port, deadline)


def _over(
    transport: Any,
    name: str,
    settings: SshSettings,
    known: KnownHosts,
    deadline: float,
    stack: contextlib.ExitStack,
) -> Any:
    """The next hop of several, through the one before it."""
    where = destination(name, settings)
    inner = paramiko.Transport(_tunnel(transport, where.host, where.port, deadline))
    stack.callback(_end, inner)
    left = max(0.1, deadline - time.monotonic())
    inner.banner_timeout = left
    inner.auth_timeout = _AUTH_SECONDS
    checker = HostKeyChecker(settings.host_keys, known, settings.known_hosts_file)
    checker.prefer(where.known_as, inner)
    try:
        inner.start_client(timeout=left)
    except (SSHException, EOFError, OSError) as error:
        raise _handshake_error(where, error, deadline, settings.connect_timeout) from None
    checker.check(where.known_as, inner.get_remote_server_key())
    _log_in(inner, where, settings)
    return inner


def _tunnel(transport: Any, host: str, port: int, deadline: float) -> Any:
    try:
        return transport.open_channel(
            "direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=max(0.1, deadline - time.monotonic())
        )
    except (SSHException, EOFError, OSError) as error:
        raise RefusedError(f"the jump host cannot reach {host} port {port}: {_text(error)}") from None


def _for_jump(settings: SshSettings, user: str | None, port: int | None) -> SshSettings:
    """Settings for a jump host: the same keys and policy, but user and port are its own."""
    return replace(settings, user=user, port=port, host=None)


def _handshake_error(where: Destination, error: Exception, deadline: float, timeout: float) -> SshError:
    if time.monotonic() >= deadline - 0.05 or "banner" in str(error):
        if "banner" in str(error) and time.monotonic() < deadline - 0.2:
            return SshError(f"{where.known_as} closed the connection without an SSH greeting")
        return ConnectTimeoutError(
            f"{where.known_as} accepts connections but its sshd did not answer within {timeout:g} s"
        )
    return SshError(f"{where.known_as}: the SSH handshake failed: {_text(error)}")


def _log_in(transport: Any, where: Destination, settings: SshSettings) -> None:
    """Try the keys, then the agent's."""
    problem: SshError | None = None
    tried = 0
    for key, failed in _candidates(where, settings):
        if failed is not None:
            problem = problem or failed
            continue
        if tried >= _MAX_KEYS:
            break
        tried += 1
        try:
            remaining = transport.auth_publickey(where.user, key)
        except AuthenticationException as error:
            if "timeout" in str(error).lower():
                raise ConnectTimeoutError(
                    f"{where.known_as} did not answer the log-in within {_AUTH_SECONDS:g} s"
                ) from None
            continue
        except (SSHException, EOFError, OSError) as error:
            raise LogInError(f"{where.known_as} ended the log-in of {where.user}: {_text(error)}") from None
        if not remaining:
            return
        raise LogInError(
            f"{where.known_as} wants {', '.join(remaining)} besides the key of {where.user}: allow it alone"
        )
    if problem is not None:
        raise problem
    if not tried:
        raise LogInError(
            f"there is no key to log in to {where.known_as} as {where.user}: set key_file or start an agent"
        )
    raise LogInError(
        f"{where.known_as} does not let {where.user} in with any of {tried} keys: put the public key into "
        "that user's authorized_keys, or correct ssh user and key_file"
    )


def _candidates(where: Destination, settings: SshSettings) -> Iterator[tuple[Any, SshError | None]]:
    """Keys from files and agent, or why a file gives none."""
    for path in where.identities:
        yield _load_key(path, settings)
    defaults = [] if where.identities else [Path.home() / ".ssh" / name for name in _DEFAULT_KEYS]
    if settings.agent:
        try:
            agent = paramiko.Agent()
        except SSHException as error:
            _log.warning("the SSH agent cannot be used", error=str(error))
        else:
            try:
                named = {_public_part(path) for path in (*where.identities, *defaults)}
                for key in agent.get_keys():
                    if not where.identities_only or key.get_base64() in named:
                        yield key, None
            finally:
                agent.close()
    for path in defaults:
        if path.is_file():
            yield _load_key(path, settings)


def _public_part(path: Path) -> str | None:
    """The public key that lies beside a private one, in base 64."""
    try:
        return path.with_name(path.name + ".pub").read_text("utf-8", "replace").split()[1]
    except (OSError, IndexError):
        return None


def _load_key(path: Path, settings: SshSettings) -> tuple[Any, SshError | None]:
    try:
        key = paramiko.PKey.from_path(path, _passphrase(settings))
    except PasswordRequiredException:
        return None, PassphraseError(
            f"the key {path} is encrypted: set ssh passphrase_file or {ENV_PREFIX}KEY_PASSPHRASE, or load it "
            "into an agent"
        )
    except FileNotFoundError:
        return None, SshConfigError(f"the key {path} does not exist: correct ssh key_file or IdentityFile")
    except OSError as error:
        return None, SshConfigError(f"the key {path} cannot be read: {error.strerror}")
    except (TypeError, ValueError, SSHException, paramiko.pkey.UnknownKeyType) as error:
        if _is_encrypted(path):
            missing = _passphrase(settings) is None
            what = (
                "is encrypted and no passphrase is configured"
                if missing
                else "does not open with its passphrase"
            )
            return None, PassphraseError(
                f"the key {path} {what}: set ssh passphrase_file or {ENV_PREFIX}KEY_PASSPHRASE, or load it "
                "into an agent"
            )
        return None, SshConfigError(f"the key {path} is none that can be used: {_text(error)}")
    certificate = path.with_name(path.name + "-cert.pub")
    if certificate.is_file() and key.public_blob is None:
        key.load_certificate(str(certificate))
    return key, None


def _is_encrypted(path: Path) -> bool:
    text = path.read_bytes()[:65536]
    if b"ENCRYPTED" in text:
        return True
    lines = text.split(b"\n")
    if not lines[0].startswith(b"-----BEGIN OPENSSH"):
        return False
    try:
        body = base64.b64decode(b"".join(line for line in lines[1:] if not line.startswith(b"-")))
    except ValueError:
        return False
    # openssh-key-v1 NUL, then the cipher's name as a string.
    return body[15:19] != b"\0\0\0\x04" or body[19:23] != b"none"


def _passphrase(settings: SshSettings) -> bytes | None:
    if settings.passphrase_file is not None:
        try:
            return settings.passphrase_file.read_bytes().rstrip(b"\r\n")
        except OSError as error:
            raise SshConfigError(
                f"the passphrase file {settings.passphrase_file} cannot be read: {error.strerror}"
            ) from None
    text = os.environ.get(f"{ENV_PREFIX}KEY_PASSPHRASE")
    return None if text is None else text.encode()


def _lookup(host: str, path: Path | None) -> dict[str, Any]:
    if path is None or not path.is_file():
        return {}
    try:
        return dict(paramiko.SSHConfig.from_path(str(path)).lookup(host))
    except (ConfigParseError, OSError, ImportError, UnicodeDecodeError) as error:
        raise SshConfigError(f"{path} cannot be used: {_text(error)}") from None


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _end(transport: Any) -> None:
    transport.close()
    transport.join(5.0)


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__


__all__: Sequence[str] = (
    "CommandResult", "Connection", "Destination", "HostKeyError", "KnownHosts", "LogInError", "SshError",
    "connection", "destination",
)  # fmt: skip
