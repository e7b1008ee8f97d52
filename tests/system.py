"""System packages in tests: skip, with the reason and the remedy, where a command is missing.

The reason starts with `MISSING`; where CI=true, tests/conftest.py turns such a skip into a failure.
Which package brings which command is said once, in scripts/system-packages.txt.
"""

from __future__ import annotations

import pytest

from clio_lab.sshd import find_command
from tests.paths import ROOT

MISSING = "missing system package"
PACKAGE_LIST = ROOT / "scripts" / "system-packages.txt"


def package_of(command: str) -> str:
    """Name of the Debian package that brings `command`; KeyError when the package list does not name it."""
    for line in PACKAGE_LIST.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            package, condition, _group, _needed_by = (part.strip() for part in line.split("|"))
            if command in condition.split():
                return package
    raise KeyError(f"{command!r} is in no line of {PACKAGE_LIST.name}; add its package there")


def missing_reason(*commands: str) -> str | None:
    """Reason for a skip when one of `commands` is missing, else None."""
    packages = {package_of(name) for name in commands if find_command(name) is None}
    if not packages:
        return None
    names = " ".join(sorted(packages))
    return f"{MISSING}: {names} (as root: sh scripts/bootstrap.sh packages test)"


def needs_system(*commands: str) -> pytest.MarkDecorator:
    """Mark for tests that need `commands`: `@needs_system("prometheus", "promtool")`, or as `pytestmark`."""
    reason = missing_reason(*commands)
    return pytest.mark.skipif(reason is not None, reason=reason or "")


def require_system(*commands: str) -> None:
    """Skip the running test (or fixture) when one of `commands` is missing."""
    reason = missing_reason(*commands)
    if reason is not None:
        pytest.skip(reason)
