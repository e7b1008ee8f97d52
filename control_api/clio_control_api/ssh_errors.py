"""Why no command could be run on a node."""

from __future__ import annotations

from typing import ClassVar


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


def text_of(error: BaseException) -> str:
    """What an error says, or its name."""
    return str(error) or type(error).__name__
