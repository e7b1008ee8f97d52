"""Containers that a demo started, and their end."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterable

_SECONDS = 60.0


def remove(names: Iterable[str]) -> list[str]:
    """End and remove the containers of these names; return the names of those that were there."""
    docker = shutil.which("docker")
    removed = []
    for name in names if docker is not None else ():
        # An engine that does not answer any more has nothing running either, as far as we can tell.
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(
                [str(docker), "rm", "--force", "--volumes", name],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False,
            )  # fmt: skip
            if done.returncode == 0 and done.stdout.strip() == name:
                removed.append(name)
    return removed
