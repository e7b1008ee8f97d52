"""Which job a process is in and which nodes it has: from Slurm's or Flux's environment."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from clio_client.config.errors import ConfigError, quoted

MAX_NODES: Final = 65_536
"""A list of more is taken for a mistake."""

_SECONDS: Final = 15.0
_PIECE: Final = re.compile(r"\[([^\[\]]*)\]|([A-Za-z0-9._-]+)")
_RANGE: Final = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")

Run = Callable[[Sequence[str]], "str | None"]


def run_program(command: Sequence[str]) -> str | None:
    """What a program prints; None where there is none of its name, it fails or takes longer than 15 s."""
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def find_job(env: Mapping[str, str]) -> str | None:
    """The id of the job that this process is in; None in none.

    It is that of the allocation, also in a step of it. Flux calls steps jobs too, with ids of their own; the
    allocation (`flux batch`, `flux alloc`) is then the instance that encloses them: flux-environment(7).
    """
    return env.get("SLURM_JOB_ID") or env.get("FLUX_ENCLOSING_ID") or env.get("FLUX_JOB_ID") or None


def find_nodes(env: Mapping[str, str], run: Run = run_program) -> list[str]:
    """Host names of the job that this process is in, in the scheduler's order, each once.

    Raises:
        ConfigError: no scheduler's environment is here, or it cannot be understood.
    """
    if listed := env.get("SLURM_JOB_NODELIST"):
        told = run(["scontrol", "show", "hostnames", listed])
        return _once((told or "").split() or expand(listed, "SLURM_JOB_NODELIST"))
    if any(name in env for name in ("FLUX_ENCLOSING_ID", "FLUX_JOB_ID", "FLUX_URI")):
        # `local` is the step's hosts in a step, else the instance's.
        source = "instance" if "FLUX_ENCLOSING_ID" in env else "local"
        told = run(["flux", "hostlist", "--expand", source])
        if told and told.split():
            return _once(told.split())
        raise ConfigError(
            "flux hostlist",
            "does not tell the hosts of this job",
            "Name them in a file, with --hostfile (Flux has the command since 2024)",
        )
    raise ConfigError(
        "SLURM_JOB_NODELIST",
        "is not set, nor is FLUX_JOB_ID: this is no job of Slurm or Flux",
        "Start it in a job script, or name the nodes in a file, with --hostfile",
    )


def _once(names: Sequence[str]) -> list[str]:
    """The names without repetitions: Flux tells a host for each of its brokers there."""
    return list(dict.fromkeys(names))


def expand(text: str, origin: str) -> list[str]:
    """The names in a Slurm host list such as `n[01-03,7],login2`, as `scontrol show hostnames` tells them.

    Raises:
        ConfigError: it is no such list, or has more than `MAX_NODES` names; `origin` is where it is from.
    """
    names: list[str] = []
    for entry in _entries(text, origin):
        names += _names(entry, text, origin)
        if len(names) > MAX_NODES:
            raise _wrong(text, origin)
    return names


def _entries(text: str, origin: str) -> Iterator[str]:
    """The text, cut at commas outside brackets."""
    depth, start = 0, 0
    for at, character in enumerate(text):
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "," and depth == 0:
            yield text[start:at]
            start = at + 1
    if depth != 0:
        raise _wrong(text, origin)
    yield text[start:]


def _names(entry: str, text: str, origin: str) -> Iterator[str]:
    parts: list[list[str]] = []
    count, end = 1, 0
    for piece in _PIECE.finditer(entry):
        if piece.start() != end:
            break
        end = piece.end()
        part = [piece[2]] if piece[2] else list(_numbers(piece[1], text, origin))
        parts.append(part)
        count *= len(part)
    if not entry or end != len(entry) or count > MAX_NODES:
        raise _wrong(text, origin)
    return map("".join, itertools.product(*parts))


def _numbers(ranges: str, text: str, origin: str) -> Iterator[str]:
    for each in ranges.split(","):
        found = _RANGE.fullmatch(each)
        first = found[1] if found else ""
        last = (found[2] if found else None) or first
        if not found or not 0 <= int(last) - int(first) < MAX_NODES:
            raise _wrong(text, origin)
        for number in range(int(first), int(last) + 1):
            yield str(number).zfill(len(first))


def _wrong(text: str, origin: str) -> ConfigError:
    return ConfigError(
        origin,
        f"{quoted(text[:200])} is no list of hosts such as n[01-03,7]",
        "Name the nodes in a file, with --hostfile",
    )
