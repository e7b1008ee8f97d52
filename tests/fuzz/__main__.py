"""Damaged inputs for every decoder of foreign bytes: `python -m tests.fuzz --inputs N --seed S`.

What must come out of a decoder is a value or an error that it documents, within a second of processor time
and 64 MiB. Inputs are drawn by a seed from the corpus (`tests/fixtures/fuzz`, recordings of runtimes) and
shared among the decoders by their speed. An input that found something is written into a folder; the exit
status is then 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.fuzz.decoders import DECODERS
from tests.fuzz.run import Outcome, alone, corpus, fuzz, quiet, replay, written
from tests.paths import ROOT


def main() -> int:
    """Print a table; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("decoders", nargs="*", metavar="NAME", help="only these decoders")
    parser.add_argument("--inputs", type=int, default=1_000_000, metavar="N", help="in all (%(default)s)")
    parser.add_argument("--seed", type=int, default=14, metavar="S", help="of the inputs (%(default)s)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "fuzz", help="for findings")
    parser.add_argument("--replay", type=Path, nargs="+", metavar="FILE", help="try these files, one decoder")
    given = parser.parse_args()
    unknown = set(given.decoders) - {decoder.name for decoder in DECODERS}
    if unknown:
        parser.error(f"no such decoder: {', '.join(sorted(unknown))}")
    chosen = [d for d in DECODERS if not given.decoders or d.name in given.decoders]
    if given.replay:
        with quiet():
            problems = [p for d in chosen for p in replay(d, given.folder, given.replay)]
        print("\n".join(problems))
        return int(bool(problems))
    weights = sum(decoder.weight for decoder in chosen)
    outcomes: dict[str, Outcome] = {}
    for decoder in chosen:
        share = max(len(corpus(decoder)), given.inputs * decoder.weight // weights)
        with quiet(), alone():
            outcome = outcomes[decoder.name] = fuzz(decoder, share, given.seed)
        for path in written(given.folder, decoder, outcome):
            print(f"  written: {path}")
    print(f"{'decoder':<16}{'inputs':>10}{'seconds':>9}{'findings':>10}")
    for name, outcome in outcomes.items():
        print(f"{name:<16}{outcome.inputs:>10}{outcome.seconds:>9.0f}{len(outcome.findings):>10}")
    inputs = sum(outcome.inputs for outcome in outcomes.values())
    findings = sum(len(outcome.findings) for outcome in outcomes.values())
    seconds = sum(outcome.seconds for outcome in outcomes.values())
    print(f"{'all':<16}{inputs:>10}{seconds:>9.0f}{findings:>10}")
    return int(findings > 0)


if __name__ == "__main__":
    sys.exit(main())
