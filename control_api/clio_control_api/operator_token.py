"""The token that is made when the service starts for the first time, and adding lines to a tokens file.

Both files are in the state directory and only their owner can read them: `token` has an operator's token in
clear, `tokens` its hash and whatever is added later.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from clio_client.config.errors import ConfigError
from clio_client.config.files import exists
from clio_control_api.principals import Role
from clio_control_api.tokens import line_of, new_token
from clio_web.appending import append_line

CLEAR: Final = "token"
HASHES: Final = "tokens"
NAME: Final = "operator"
_HEAD: Final = (
    "# Tokens of the control API: name:role:hash. Add one with: clio-control-api token NAME --add\n"
)


def ensure_tokens(directory: Path) -> bool:
    """Make an operator's token where the directory has no tokens file; whether one was made.

    Raises:
        ConfigError: the directory cannot be written.
    """
    try:
        with _locked(directory):
            if exists(directory / HASHES):
                return False
            token = new_token()
            # In this order: a start that is cut short between the two is a first start again.
            _write(directory / CLEAR, token + "\n")
            _write(directory / HASHES, _HEAD + line_of(NAME, Role.OPERATOR, token) + "\n")
    except OSError as error:
        raise ConfigError(
            directory, f"no operator token can be made there: {error.strerror}", "Give another state_dir"
        ) from None
    return True


def add_line(path: Path, line: str) -> None:
    """Append a line to a tokens file, which is made where it is missing.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        with _locked(path.parent):
            if not exists(path):
                _write(path, _HEAD + line + "\n")
                return
            append_line(path, line)
    except OSError as error:
        raise ConfigError(path, f"cannot be written: {error.strerror}", "Name a file you may write") from None


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Two services, or a service and a command, that use one directory take turns."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, text: str) -> None:
    """A file with this text that only its owner can read, whole or not at all."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
