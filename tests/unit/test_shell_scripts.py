"""Shell scripts: what shellcheck says of them."""

from __future__ import annotations

import subprocess

from tests.paths import ROOT
from tests.system import needs_system

SCRIPTS = sorted(path for folder in ("contrib", "scripts") for path in (ROOT / folder).rglob("*.sh"))


@needs_system("shellcheck")
def test_shellcheck_has_nothing_to_say() -> None:
    assert {path.name for path in SCRIPTS} >= {"bootstrap.sh", "epilog.sh", "prolog.sh"}
    said = subprocess.run(
        ["shellcheck", *map(str, SCRIPTS)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (said.returncode, said.stdout) == (0, ""), said.stdout + said.stderr
