"""Which broken lines the unit tests notice: a seeded sample of mutants of the core modules (`make mutants`).

The mutations are cosmic-ray's. It runs one command for all modules and knows no sample; here each module is
run against the tests that are there for it, and of each place in the code one mutation is drawn, so that a
sum, which has a dozen, counts as much as a comparison. All of it happens in a copy of the tree.

A mutant is killed when a test fails or does not end. What changes nothing that anybody could notice is
listed, with the reason, in `equivalents.yml`, and does not count.

SIGTERM and SIGINT end it at once; it leaves neither processes nor its copy.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import ctypes
import importlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

import psutil
import yaml

from tests.mutants.modules import MODULES

PACKAGES: Final = ("client", "web", "exporter", "control_api", "lab")
ROOT: Final = Path(__file__).resolve().parents[2]
EQUIVALENTS: Final = Path(__file__).with_name("equivalents.yml")
DOCUMENT: Final = "docs/reliability.md"
MARKS: Final = ("<!-- mutants -->", "<!-- end of mutants -->")
PRELOADED: Final = (
    "pytest",
    "hypothesis",
    "zmq",
    "msgpack",
    "prometheus_client",
    "structlog",
    "psutil",
    "flask",
)
LEFT_OUT: Final = ("NoOp", "_Is", "_IsNot")
"""Identity for equality: whether that shows depends on what the interpreter keeps, not on the test."""

_SUBREAPER: Final = 36
_COPY: Final = "CLIO_MUTANTS_COPY_OF"


@dataclass(frozen=True)
class Mutant:
    """A module with one place changed; ``line`` counts from 1, ``before`` and ``after`` are that line."""

    line: int
    operator: str
    before: str
    after: str
    code: str


@dataclass
class Score:
    """What became of a module's sample."""

    places: int = 0
    killed: int = 0
    equivalent: int = 0
    survived: list[Mutant] = field(default_factory=list)

    @property
    def counted(self) -> int:
        """Mutants that behave differently."""
        return self.killed + len(self.survived)


# --- mutants ----------------------------------------------------------------------------------------------


def meaning(code: str) -> str:
    """The code without what is not executed: annotations, docstrings, places."""

    class Strip(ast.NodeTransformer):
        def visit_arg(self, node: ast.arg) -> ast.arg:
            node.annotation = None
            return node

        def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
            self.generic_visit(node)
            node.annotation = ast.Constant(None)
            return node

        def visit_FunctionDef(self, node: Any) -> ast.AST:
            self.generic_visit(node)
            node.returns = None
            return node  # type: ignore[no-any-return]

        visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

        def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
            is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
            return ast.Pass() if is_text else node

    return ast.dump(Strip().visit(ast.parse(code)))


def mutants_by_place(code: str) -> dict[tuple[int, int], list[Mutant]]:
    """All mutants that may behave differently, by line and column of what they change."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    same = meaning(code)
    lines = code.splitlines()
    tree = get_ast(code)
    found: dict[tuple[int, int], list[Mutant]] = {}
    for name in operator_names():
        kind = get_operator(name)
        if kind.arguments() or name.endswith(LEFT_OUT):
            continue
        operator = kind()
        places = (start for node in ast_nodes(tree) for start, _ in operator.mutation_positions(node))
        for occurrence, place in enumerate(places):
            # AttributeError: cosmic-ray's replacement of exceptions knows no dotted names.
            with contextlib.suppress(SyntaxError, AttributeError):
                mutated = mutate_code(code, operator, occurrence)
                if mutated is None or meaning(mutated) == same:
                    continue
                pairs = zip(lines, mutated.splitlines(), strict=False)
                number, (before, after) = next((i, p) for i, p in enumerate(pairs, 1) if p[0] != p[1])
                mutant = Mutant(number, name.partition("/")[2], before.strip(), after.strip(), mutated)
                found.setdefault(place, []).append(mutant)
    return found


def sampled(code: str, module: str, size: int, seed: int) -> tuple[int, list[Mutant]]:
    """The number of places, and one mutant each of ``size`` of them."""
    places = mutants_by_place(code)
    draw = random.Random(f"{seed} {module}")
    chosen = draw.sample(sorted(places), min(size, len(places)))
    return len(places), [draw.choice(places[place]) for place in chosen]


def is_equivalent(module: str, mutant: Mutant, path: Path = EQUIVALENTS) -> bool:
    """Whether it is listed, by line and, where they are given, module, what became of the line, and operator;
    a reason must be there.
    """
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
        assert entry["because"]
        if (
            re.search(entry.get("module", ""), module)
            and re.search(entry["line"], mutant.before)
            and re.search(entry.get("after", ""), mutant.after)
            and re.search(entry.get("operator", ""), mutant.operator)
        ):
            return True
    return False


# --- ending -----------------------------------------------------------------------------------------------


class Ended(SystemExit):
    """A signal ends the run; what is open is closed on the way."""


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """SIGTERM and SIGINT end the block, and no process that it began outlives it.

    Processes whose parents have ended become ours (PR_SET_CHILD_SUBREAPER), so that all can be found.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # once is enough
        raise Ended(128 + number)

    if ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        end_descendants()
        for number, handler in before.items():
            signal.signal(number, handler)


def end_descendants() -> None:
    """Kill what this process has begun, with all that those have."""
    while found := psutil.Process().children(recursive=True):
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, 5)


# --- running them -----------------------------------------------------------------------------------------


def run_tests(paths: Iterable[str], seconds: float) -> int | None:
    """Exit status of pytest in a process of its own, which has its libraries; None when it took longer."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        with open(os.devnull, "r+b", buffering=0) as nothing:  # noqa: PTH123 - a device
            for descriptor in (0, 1, 2):
                os.dup2(nothing.fileno(), descriptor)
        import pytest

        options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--timeout", str(seconds)]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of libraries loaded already
        status: int = 3
        try:
            status = int(pytest.main([*options, *paths]))
        finally:
            os._exit(status)
    with contextlib.suppress(PermissionError):
        os.setpgid(child, child)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            end_descendants()  # what a broken line has left
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    end_descendants()
    return None


def try_module(module: str, tests: tuple[str, ...], size: int, seed: int) -> Score:
    """Run the sample of a module, in the copy that is the current directory."""
    path = Path(module)
    code = path.read_text(encoding="utf-8")
    started = time.monotonic()
    if (status := run_tests(tests, 900)) != 0:
        raise SystemExit(f"{module}: its tests fail without a mutation ({status})")
    limit = 20 + 10 * (time.monotonic() - started)
    places, mutants = sampled(code, module, size, seed)
    score = Score(places)
    for mutant in mutants:
        if is_equivalent(module, mutant):
            score.equivalent += 1
            continue
        path.write_text(mutant.code, encoding="utf-8")
        try:
            survived = run_tests(tests, limit) == 0
        finally:
            path.write_text(code, encoding="utf-8")
        if survived:
            score.survived.append(mutant)
            print(f"  survived: {module}:{mutant.line} {mutant.operator}\n    - {mutant.before}")
            print(f"    + {mutant.after}", flush=True)
        else:
            score.killed += 1
    return score


def table(scores: dict[str, Score], size: int, seed: int) -> Iterator[str]:
    """The result as lines of Markdown."""
    yield f"Seed {seed}, {size} places a module (`make mutants`):"
    yield ""
    yield "| module | places | tried | equivalent | killed | survived |"
    yield "|---|---|---|---|---|---|"
    for module, score in scores.items():
        tried = score.counted + score.equivalent
        row = (score.places, tried, score.equivalent, score.killed, len(score.survived))
        yield f"| `{module}` | {' | '.join(map(str, row))} |"
    counted, killed = sum(s.counted for s in scores.values()), sum(s.killed for s in scores.values())
    yield ""
    if counted:
        yield f"Of {counted} that behave differently {killed} were noticed: {100 * killed / counted:.0f} %."


def write(lines: Iterable[str], path: Path) -> None:
    """Put the lines between the marks."""
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    path.write_text(f"{before}{MARKS[0]}\n{chr(10).join(lines)}\n{MARKS[1]}{after}", encoding="utf-8")


def copy_tree(target: Path) -> None:
    """What is under version control, as it is now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        source, copy = ROOT / name, target / name
        if source.exists() or source.is_symlink():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)


def main() -> int:
    """Run in a copy, print what survived and the table; 1 if anything survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="PART", help="only modules whose path has this in it")
    parser.add_argument("--places", type=int, default=10, metavar="N", help="places a module (%(default)s)")
    parser.add_argument("--seed", type=int, default=14, metavar="N", help="of the sample (%(default)s)")
    parser.add_argument("--write", action="store_true", help=f"write the table into {DOCUMENT}")
    chosen = parser.parse_args()
    original = os.environ.get(_COPY)
    if original is None:
        with tempfile.TemporaryDirectory(prefix="clio-mutants-") as copy:
            copy_tree(Path(copy))
            paths = [copy, *(str(Path(copy) / package) for package in PACKAGES)]
            paths += filter(None, [os.environ.get("PYTHONPATH")])
            environment = {**os.environ, _COPY: str(ROOT), "PYTHONPATH": os.pathsep.join(paths)}
            environment["PYTHONDONTWRITEBYTECODE"] = "1"  # for files of one second
            again = [sys.executable, "-m", "tests.mutants", *sys.argv[1:]]
            # In a session of its own: of Ctrl-C, which all in the terminal's group get, it hears from here.
            with ending():
                return subprocess.Popen(again, cwd=copy, env=environment, start_new_session=True).wait()
    with ending():
        return measured(chosen, Path(original))


def measured(chosen: argparse.Namespace, original: Path) -> int:
    """Run the samples of the chosen modules, in the copy."""
    for name in PRELOADED:
        importlib.import_module(name)
    scores: dict[str, Score] = {}
    for module, tests in MODULES.items():
        if not chosen.modules or any(part in module for part in chosen.modules):
            print(f"{module} ...", flush=True)
            score = scores[module] = try_module(module, tests, chosen.places, chosen.seed)
            print(f"  {score.killed} of {score.counted} killed, {score.equivalent} equivalent", flush=True)
            if chosen.write:
                write(table(scores, chosen.places, chosen.seed), original / DOCUMENT)
    print("\n".join(table(scores, chosen.places, chosen.seed)))
    return int(any(score.survived for score in scores.values()))


if __name__ == "__main__":
    sys.exit(main())
