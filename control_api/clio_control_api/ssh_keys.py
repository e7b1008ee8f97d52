"""Which keys are shown to a host: those of files and of an agent, as ssh_config(5) says of IdentityFile."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import paramiko
from paramiko.auth_strategy import AuthSource, AuthStrategy
from paramiko.ssh_exception import AuthenticationException, PasswordRequiredException, SSHException

from clio_control_api.settings import ENV_PREFIX, SshSettings
from clio_control_api.ssh_config import Destination
from clio_control_api.ssh_errors import (
    ConnectTimeoutError,
    LogInError,
    PassphraseError,
    SshConfigError,
    SshError,
    text_of,
)
from clio_web.logs import get_logger

AUTH_S: Final = 10.0
"""How long one answer to a log-in may take."""

PASSPHRASE: Final = f"{ENV_PREFIX}KEY_PASSPHRASE"
_DEFAULT_KEYS: Final = ("id_ed25519", "id_ecdsa", "id_rsa")
_MAX_KEYS: Final = 6
_REMEDY: Final = f"set ssh passphrase_file or {PASSPHRASE}, or load it into an agent"

_log = get_logger(__name__)


class Keys(AuthStrategy):  # type: ignore[misc]
    """Shows a host the keys there are, and says why none of them was let in."""

    def __init__(self, where: Destination, settings: SshSettings) -> None:
        super().__init__(ssh_config=None)
        self._where = where
        self._settings = settings
        self._problem: SshError | None = None

    def get_sources(self) -> Iterator[AuthSource]:
        """Keys, in the order in which they are tried.

        First those that are named, from the agent where it has them; then, unless IdentitiesOnly forbids, all
        others of the agent; and where none is named, the default files.
        """
        where, settings = self._where, self._settings
        agent = _agent() if settings.agent and where.agent else None
        try:
            loaded = {} if agent is None else {key.get_base64(): key for key in agent.get_keys()}
            files = where.identities or tuple(_existing_defaults())
            for path in files:
                key = loaded.pop(_public_part(path) or "", None)
                key = self._load(path) if key is None else key
                if key is not None:
                    yield _Key(where.user, key)
            if not where.identities_only:
                for key in loaded.values():
                    yield _Key(where.user, key)
        finally:
            if agent is not None:
                agent.close()

    def authenticate(self, transport: Any) -> None:
        """Log in; raises `SshError`."""
        where, tried = self._where, 0
        for source in self.get_sources():
            if tried >= _MAX_KEYS:
                break
            tried += 1
            try:
                remaining = source.authenticate(transport)
            except AuthenticationException as error:
                if "timeout" in str(error).lower():
                    raise ConnectTimeoutError(
                        f"{where.where} did not answer the log-in within {AUTH_S:g} s"
                    ) from None
                continue
            except (SSHException, EOFError, OSError) as error:
                raise LogInError(
                    f"{where.where} ended the log-in of {where.user}: {text_of(error)}"
                ) from None
            if not remaining:
                return
            raise LogInError(
                f"{where.where} wants {', '.join(remaining)} besides the key of {where.user}: allow it alone"
            )
        if self._problem is not None:
            raise self._problem
        if not tried:
            raise LogInError(
                f"there is no key to log in to {where.where} as {where.user}: set key_file or start an agent"
            )
        raise LogInError(
            f"{where.where} does not let {where.user} in with any of {tried} keys: put the public key into "
            "that user's authorized_keys, or correct ssh user and key_file"
        )

    def _load(self, path: Path) -> Any:
        """The key of a file; None, with the first problem remembered, when it gives none."""
        try:
            return load_key(path, self._settings)
        except SshError as error:
            self._problem = self._problem or error
            return None


class _Key(AuthSource):  # type: ignore[misc]
    def __init__(self, user: str, key: Any) -> None:
        super().__init__(username=user)
        self._key = key

    def authenticate(self, transport: Any) -> Any:
        return transport.auth_publickey(self.username, self._key)


def load_key(path: Path, settings: SshSettings) -> Any:
    """The private key of a file, with the certificate that lies beside it.

    Raises:
        SshError: it cannot be used; in particular when others can read it, as ssh(1) has it.
    """
    try:
        found = path.stat()
        if found.st_mode & 0o077 and found.st_uid == os.geteuid():
            raise SshConfigError(
                f"others can read the key {path} (mode {found.st_mode & 0o777:o}): chmod 600 it, and make a "
                "new one if it was read"
            )
        key = paramiko.PKey.from_path(path, _passphrase(settings))
    except PasswordRequiredException:
        raise PassphraseError(f"the key {path} is encrypted: {_REMEDY}") from None
    except FileNotFoundError:
        raise SshConfigError(f"the key {path} does not exist: correct ssh key_file or IdentityFile") from None
    except OSError as error:
        raise SshConfigError(f"the key {path} cannot be read: {error.strerror}") from None
    except (TypeError, ValueError, SSHException, paramiko.pkey.UnknownKeyType) as error:
        if not _is_encrypted(path):
            raise SshConfigError(f"the key {path} is none that can be used: {text_of(error)}") from None
        without = _passphrase(settings) is None
        what = (
            "is encrypted and no passphrase is configured" if without else "does not open with its passphrase"
        )
        raise PassphraseError(f"the key {path} {what}: {_REMEDY}") from None
    certificate = path.with_name(path.name + "-cert.pub")
    if certificate.is_file() and key.public_blob is None:
        key.load_certificate(str(certificate))
    return key


def _agent() -> Any:
    try:
        return paramiko.Agent()
    except SSHException as error:
        _log.warning("the SSH agent cannot be used", error=str(error))
        return None


def _existing_defaults() -> Iterator[Path]:
    for name in _DEFAULT_KEYS:
        path = Path.home() / ".ssh" / name
        if path.is_file() or _public_part(path) is not None:
            yield path


def _public_part(path: Path) -> str | None:
    """The public key in base 64: of the file beside a private one, or of one that is a public key itself."""
    for candidate in (path.with_name(path.name + ".pub"), path):
        try:
            fields = candidate.read_text("utf-8", "replace")[:65536].split()
        except OSError:
            continue
        if len(fields) > 1 and not fields[0].startswith("-"):
            return fields[1]
    return None


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
    text = os.environ.get(PASSPHRASE)
    return None if text is None else text.encode()
