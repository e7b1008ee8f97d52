"""Try the few tests that failed in `make test` once more, one by one, on processors they have to themselves.

    python -m tests.again [ARGUMENT ...]

Some six thousand tests with real runtimes, sshd and Prometheus share two processors: one that times out
there and passes alone says something of the machine, or of itself. It is named, so that it gets mended,
and is no reason to throw a whole run away. What fails again has failed; so have more than a few at once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

MOST: Final = 6
"""So many are tried again, one in a thousand: more than these are a defect, not an accident."""

LAST_FAILED: Final = Path(".pytest_cache/v/cache/lastfailed")
"""What pytest keeps of the last runs: a table whose keys are the tests that failed since they last passed."""


def failed(directory: Path) -> list[str]:
    """The tests that failed in `directory` when they last ran; none where pytest kept nothing."""
    try:
        kept: dict[str, bool] = json.loads((directory / LAST_FAILED).read_text())
    except FileNotFoundError:
        return []
    return sorted(kept)


def main(arguments: Sequence[str]) -> int:
    """Try again what failed; 0 if all of it passes now, else 1."""
    tests = failed(Path.cwd())
    if not 0 < len(tests) <= MOST:
        print(f"{len(tests)} tests failed: not tried again (that is done for 1 to {MOST})")
        return 1
    status = subprocess.run([sys.executable, "-m", "pytest", *arguments, *tests], check=False).returncode
    if status:
        return 1
    print("Passed only when tried again, alone; to be mended:", *tests, sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
