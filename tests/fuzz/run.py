"""Giving inputs to a decoder, within bounds of processor time and memory, and what came of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

import structlog

from tests.fuzz.decoders import CORPUS, Decoder
from tests.fuzz.mutate import mutated

LIMIT_S: Final = 1.0
"""Processor time that one input may take; the longest has 16 kB."""
LIMIT_BYTES: Final = 64 * 1024 * 1024
"""Memory that one input may add to the most that was ever in use."""
_KEPT: Final = 3
"""Inputs kept of each kind of finding."""


class TooSlowError(BaseException):
    """The input has had its time. No `Exception`: nothing in between may take it for one of its own."""


class TooLargeError(Exception):
    """The input took more memory than it may."""


@dataclass
class Outcome:
    """What became of a decoder's inputs: how many there were, and inputs by what came out of them."""

    inputs: int = 0
    findings: dict[str, list[bytes]] = field(default_factory=dict)
    seconds: float = 0.0


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing is logged: a log line an input is what takes most of the time."""

    def drop(*_: object) -> str:
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[drop], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Raise `TooSlowError` after `LIMIT_S` of processor time. In the main thread only."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def problem_of(decoder: Decoder, decode: Callable[[bytes], object], data: bytes) -> str | None:
    """What is wrong with what came out, and where; None when it is what the decoder documents."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with bounded():
            decode(data)
    except decoder.errors:
        pass
    except (Exception, TooSlowError) as error:  # noqa: BLE001 - that is what is looked for
        return _named(error)
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most) * 1024
    return f"took {more >> 20} MiB" if more > LIMIT_BYTES else None


def _named(error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/clio_" in f.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {where}: {str(error)[:100]!a}"


def _kind(problem: str) -> str:
    return problem.split(": ")[0]


def fuzz(decoder: Decoder, inputs: int, seed: int) -> Outcome:
    """Give a decoder so many inputs."""
    draw = random.Random(f"{seed} {decoder.name}")
    seeds = decoder.all_seeds()
    outcome = Outcome()
    started = time.process_time()
    with tempfile.TemporaryDirectory(prefix="clio-fuzz-") as home, decoder.opened(Path(home)) as decode:
        for number in range(inputs):
            data = seeds[number] if number < len(seeds) else mutated(draw, seeds)
            outcome.inputs += 1
            problem = problem_of(decoder, decode, data)
            if problem is not None:
                kept = outcome.findings.setdefault(_kind(problem), [])
                if not kept:
                    print(f"  {decoder.name}: {problem}", flush=True)
                if len(kept) < _KEPT:
                    kept.append(data)
    outcome.seconds = time.process_time() - started
    return outcome


def replay(decoder: Decoder, home: Path, inputs: Sequence[Path]) -> list[str]:
    """What is wrong with these files of the corpus, one line each."""
    found = []
    with decoder.opened(home) as decode:
        for path in inputs:
            problem = problem_of(decoder, decode, path.read_bytes())
            if problem is not None:
                found.append(f"{decoder.name}/{path.name}: {problem}")
    return found


def corpus(decoder: Decoder) -> list[Path]:
    """The files of a decoder in the corpus."""
    return sorted(path for path in (CORPUS / decoder.name).glob("*") if path.is_file())


def written(folder: Path, decoder: Decoder, outcome: Outcome) -> list[Path]:
    """Write the inputs that found something into a folder; returns their paths."""
    paths = []
    for inputs in outcome.findings.values():
        for data in inputs:
            path = folder / decoder.name / hashlib.sha256(data).hexdigest()[:12]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            paths.append(path)
    return paths


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """What decoders print is not shown (argparse and cheroot do)."""
    with Path(os.devnull).open("w", encoding="utf-8") as nothing, contextlib.redirect_stderr(nothing):
        yield
    sys.stderr.flush()
