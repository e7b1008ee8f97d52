"""Body encoding: chunks in, chunks out, never a whole exposition in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

try:  # the optional extra `fast`: the same stream in a fifth of the time
    from isal import isal_zlib as zlib
except ImportError:
    import zlib  # type: ignore[no-redef]

BLOCK = 64 * 1024
"""Bytes. Large enough that a system call a block costs nothing, small enough that a socket buffer
takes most of it: the server copies what a slow client leaves unread once for each partial write."""

_GZIP_WINDOW = 31  # zlib: 15 bits of window + 16 for the gzip container


def reblock(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Join small chunks and split large ones into blocks of about BLOCK bytes."""
    pending: list[bytes] = []
    size = 0
    for chunk in chunks:
        if size + len(chunk) < BLOCK:
            pending.append(chunk)
            size += len(chunk)
            continue
        joined = b"".join((*pending, chunk))
        pending.clear()
        cut = len(joined) - len(joined) % BLOCK
        for start in range(0, cut, BLOCK):
            yield joined[start : start + BLOCK]
        if cut < len(joined):
            pending.append(joined[cut:])
        size = len(joined) - cut
    if pending:
        yield b"".join(pending)


def gzip_stream(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Compress to one gzip member at level 1 (exposition text shrinks tenfold there already)."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW)
    for chunk in chunks:
        compressed = compressor.compress(chunk)
        if compressed:
            yield compressed
    yield compressor.flush()
