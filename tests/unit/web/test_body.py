"""Bodies in blocks, and compressed: with the extra `fast` and without."""

from __future__ import annotations

import gzip
import zlib
from types import ModuleType

import pytest
from isal import isal_zlib

from clio_web import body

LINES = [
    f'clio_worker_load{{worker_id="{number}"}} {number * 7919 % 1000}\n'.encode() for number in range(5000)
]


@pytest.mark.parametrize("library", [zlib, isal_zlib])
def test_one_gzip_member_that_anybody_can_read(monkeypatch: pytest.MonkeyPatch, library: ModuleType) -> None:
    monkeypatch.setattr(body, "zlib", library)
    whole = b"".join(body.gzip_stream(LINES))
    assert gzip.decompress(whole) == b"".join(LINES)
    assert len(whole) < len(b"".join(LINES)) / 4
    decoder = zlib.decompressobj(31)
    assert decoder.decompress(whole) == b"".join(LINES)
    assert decoder.eof
    assert decoder.unused_data == b""


@pytest.mark.parametrize("library", [zlib, isal_zlib])
def test_nothing_is_an_empty_member(monkeypatch: pytest.MonkeyPatch, library: ModuleType) -> None:
    monkeypatch.setattr(body, "zlib", library)
    assert gzip.decompress(b"".join(body.gzip_stream([]))) == b""


def test_blocks_are_of_one_size_and_lose_nothing() -> None:
    whole = b"".join(LINES)
    chunks = [*LINES, whole, b"", b"end"]
    blocks = list(body.reblock(chunks))
    assert b"".join(blocks) == b"".join(chunks)
    assert max(map(len, blocks)) <= body.BLOCK
    assert len(blocks) <= 2 + 2 * len(b"".join(chunks)) // body.BLOCK
