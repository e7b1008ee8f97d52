"""Reading configuration files: bounded, regular files only, UTF-8."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from clio_client.config.errors import ConfigError


def exists(path: Path) -> bool:
    """Whether there is something at `path`; True also where that cannot be told (reading will say why)."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True
    return True


def read_text(path: Path, what: str, max_bytes: int) -> str:
    """The text of the regular file `path`, without a byte order mark; line ends stay as they are.

    `what` names the file's role in errors ("hostfile"). Raises `ConfigError` when the file is missing,
    not a regular file, unreadable, larger than `max_bytes` or not UTF-8.
    """
    try:
        # O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if path.is_symlink():
            raise ConfigError(
                path,
                f"the {what} is a symbolic link to a file that does not exist",
                "Restore the link's target or name another file",
            ) from None
        raise ConfigError(
            path, f"the {what} does not exist", "Create it or correct the path that names it"
        ) from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, what, error) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise ConfigError(path, f"the {what} is a directory", "Name a file in it")
        if not stat.S_ISREG(mode):
            raise ConfigError(path, f"the {what} is not a regular file", "Name a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            data = stream.read(max_bytes + 1)
    except OSError as error:
        raise _unreadable(path, what, error) from None
    finally:
        os.close(descriptor)
    if len(data) > max_bytes:
        raise ConfigError(
            path,
            f"the {what} is larger than {max_bytes} bytes",
            "Check that this is the file you meant; shorten it if it is",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            path,
            f"the {what} is not UTF-8 text (byte {error.start})",
            "Save the file as UTF-8",
            line=data.count(b"\n", 0, error.start) + 1,
        ) from None


def _unreadable(path: Path, what: str, error: Exception) -> ConfigError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return ConfigError(
        path,
        f"the {what} cannot be read: {reason}",
        "Give the exporter's user read permission or correct the path",
    )
