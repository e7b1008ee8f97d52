"""Heads of requests and what has arrived of them, for any bytes."""

from __future__ import annotations

import io

from hypothesis import example, given
from hypothesis import strategies as st

from clio_web.arrival import missing, missing_hello
from clio_web.heads import StrictHeaders, head_problem

PIECES = [
    b"Host", b"Content-Length", b"Transfer-Encoding", b"X-Y", b"x_y", b": ", b":", b"1", b"+1", b"\r\n",
    b"\n", b"\r", b" ", b"\t", b"\x00", b"\xff", b"a.example:80", b"[::1]", b"\r\n\r\n", b"Cookie: a=b\r\n",
    b"Accept: x\r\n",
]  # fmt: skip
heads = st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), max_size=30).map(b"".join)


@given(heads)
@example(b"Host: a\r\nHost: a\r\n\r\n")
def test_any_head_is_read_or_refused(data: bytes) -> None:
    try:
        headers = StrictHeaders()(io.BytesIO(data))
    except ValueError as error:
        assert error.args  # noqa: PT017 - any other error fails the test
        return
    for name, value in headers.items():
        assert name == name.title()
        assert b"_" not in name
        assert not any(byte in value for byte in b"\r\n\x00")
        assert value == value.strip(b" \t")
    head_problem(headers, b"HTTP/1.1")


def test_repeated_headers_are_joined() -> None:
    data = (
        b"Accept: a\r\nX-Forwarded-For: 1.2.3.4\r\naccept: b\r\nx-forwarded-for: 5.6.7.8\r\n"
        b"Cookie: a=1\r\ncookie: b=2\r\n\r\n"
    )
    assert StrictHeaders()(io.BytesIO(data)) == {
        b"Accept": b"a, b",
        b"X-Forwarded-For": b"1.2.3.4, 5.6.7.8",
        b"Cookie": b"a=1; b=2",
    }


@given(heads, st.integers(0, 60))
def test_what_is_missing_is_never_more_than_what_is_missing(data: bytes, cut: int) -> None:
    """Otherwise a request that has come whole would wait for ever."""
    if missing(data, 1000, 1000) == 0:
        begun = data[:cut]
        assert missing(begun, 1000, 1000) <= max(0, len(data) - len(begun)) or data[:cut] == data


def test_what_is_missing() -> None:
    post = b"POST / HTTP/1.1\r\nHost: x\r\ncontent-length: 10\r\n\r\n"
    assert missing(b"", 100, 100) == 1
    assert missing(post[:-1], 100, 100) == 1
    assert missing(post, 100, 100) == 10
    assert missing(post + b"123", 100, 100) == 7
    assert missing(post + b"1234567890", 100, 100) == 0
    assert missing(post, 100, 9) == 0, "refused without reading it"
    assert missing(b"x" * 101, 100, 100) == 0, "refused"


def test_what_is_missing_of_a_tls_hello() -> None:
    hello = b"\x16\x03\x01\x00\x0a" + b"x" * 10
    assert [missing_hello(hello[:n]) for n in (0, 1, 4, 5, 14, 15)] == [1, 4, 1, 10, 1, 0]
    assert missing_hello(hello + b"x") == 0
    assert missing_hello(b"GET / HTTP/1.1") == 0
