"""``python -m grafana.generator``: write the dashboards."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.generator import variables
from grafana.generator.board import Board, build, expected_empty
from grafana.generator.boards import all_boards

DIRECTORY = Path(__file__).parent.parent / "dashboards"


def render(board: Board) -> str:
    """A dashboard as the text of its file."""
    return json.dumps(build(board), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write(directory: Path, control_api: str) -> None:
    """Write every dashboard to `directory`, and remove files of dashboards that are no more."""
    directory.mkdir(parents=True, exist_ok=True)
    boards = all_boards(control_api)
    for board in boards:
        (directory / f"{board.uid}.json").write_text(render(board), encoding="utf-8")
    for path in directory.glob("clio-*.json"):
        if path.stem not in {board.uid for board in boards}:
            path.unlink()


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m grafana.generator", description=__doc__)
    parser.add_argument("--directory", type=Path, default=DIRECTORY, help="where to write (%(default)s)")
    parser.add_argument(
        "--control-api",
        default=variables.CONTROL_API_URL,
        metavar="URL",
        help="base URL at which browsers reach the control API (%(default)s)",
    )
    parser.add_argument(
        "--expected-empty",
        action="store_true",
        help="instead of writing, list the panels that may rightly have no data, and when",
    )
    options = parser.parse_args(arguments)
    if options.expected_empty:
        for board in all_boards(options.control_api):
            for number, reason in expected_empty(board).items():
                print(f"{board.uid}\t{number}\t{reason}")
        return 0
    write(options.directory, options.control_api.rstrip("/"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
