"""Lines at the end of files that several processes write."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path


def append_line(path: Path, line: str, mode: int = 0o600) -> None:
    """Append a line, whole or not at all, to a file that is made where it is missing; `line` has no end.

    What somebody left without an end of line does not swallow it. Where the file system has locks, writers
    take turns; where it has none, a full disk may leave a part, and the next line begins after that.

    Raises:
        OSError: it cannot be written.
    """
    data = f"{line}\n".encode()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        locked = _locked(descriptor)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data
        # A disk that is all but full takes a part of it, and says so by the number only.
        if os.write(descriptor, data) != len(data):
            if locked:
                os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return True
