"""The corpus of `make fuzz`: what once found something, and what inputs are made of."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from clio_client.config.errors import ConfigError
from tests.fuzz import run
from tests.fuzz.decoders import CORPUS, DECODERS, Decoder
from tests.fuzz.http_requests import shaped, taken_apart
from tests.fuzz.mutate import MAX_BYTES, mutated

BY_NAME = {decoder.name: decoder for decoder in DECODERS}


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.name)
def test_the_corpus(decoder: Decoder, tmp_path: Path) -> None:
    with run.quiet():
        assert run.replay(decoder, tmp_path, run.corpus(decoder)) == []


def test_every_folder_of_the_corpus_has_its_decoder() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= set(BY_NAME)
    assert all(decoder.all_seeds() for decoder in DECODERS)


def test_inputs_are_those_of_the_seed() -> None:
    seeds = BY_NAME["hostfile"].all_seeds()
    first, again, other = (random.Random(seed) for seed in (1, 1, 2))
    made = [mutated(first, seeds) for _ in range(200)]
    assert made == [mutated(again, seeds) for _ in range(200)]
    assert made != [mutated(other, seeds) for _ in range(200)]
    assert max(map(len, made)) <= MAX_BYTES
    assert len(set(made) - set(seeds)) > 150


def test_what_is_a_finding() -> None:
    decoder = BY_NAME["hostfile"]

    def error(data: bytes) -> None:
        raise KeyError(data)

    def documented(data: bytes) -> None:
        raise ConfigError("hosts", "x", "y")

    def endless(data: bytes) -> None:
        while True:
            with contextlib.suppress(Exception):  # as a decoder may
                sum(data)

    def greedy(data: bytes) -> None:
        assert bytearray(run.LIMIT_BYTES * 2)

    assert run.problem_of(decoder, documented, b"x") is None
    assert str(run.problem_of(decoder, error, b"x")).startswith("KeyError at ?")
    assert str(run.problem_of(decoder, endless, b"x")).startswith("TooSlowError")
    assert "MiB" in str(run.problem_of(decoder, greedy, b"x"))


def test_findings_are_written_and_counted(tmp_path: Path) -> None:
    decoder = BY_NAME["hostfile"]
    strict = Decoder("hostfile", 1, (), decoder.opened)
    outcome = run.fuzz(strict, 60, 1)
    assert outcome.inputs == 60
    assert outcome.findings
    paths = run.written(tmp_path, strict, outcome)
    assert len(run.replay(strict, tmp_path, paths)) == len(paths) > 0
    assert run.replay(decoder, tmp_path, paths) == []


def test_a_request_is_made_of_its_parts_again() -> None:
    request = b"POST /a%20b?x=1&y=%2F HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
    assert shaped(taken_apart(request)) == request
