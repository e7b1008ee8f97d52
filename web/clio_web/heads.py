"""The head of a request, read strictly: what two servers could understand differently is refused.

A proxy before this one and this one must agree where a request ends and whose it is (RFC 9112, sections 2.2,
3.2, 5.1, 6.3): no bare CR, no folded lines, one Host, one length that is a plain number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()*+;=-]{0,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")
_ONCE = frozenset(
    {b"Host", b"Content-Length", b"Content-Type", b"Transfer-Encoding", b"Authorization", b"Origin",
     b"Expect", b"Sec-Fetch-Site", b"Sec-Fetch-Mode", b"Sec-Fetch-Dest",
     b"X-Forwarded-Proto", b"X-Forwarded-Host"}
)  # fmt: skip
"""Headers of which a second one would leave open which of them counts."""


class StrictHeaders:
    """Reads header lines, as cheroot's `HeaderReader` does. Raises ValueError for what is to be refused."""

    def __call__(self, rfile: Any, hdict: dict[bytes, bytes] | None = None) -> dict[bytes, bytes]:
        """The headers up to the empty line, in `hdict` too; repeated ones joined by commas."""
        headers = {} if hdict is None else hdict
        while (line := rfile.readline()) != b"\r\n":
            if not line:
                raise ValueError("Illegal end of headers.")
            if not line.endswith(b"\r\n"):
                raise ValueError("HTTP requires CRLF terminators")
            name, colon, value = line[:-2].partition(b":")
            if not colon or not _NAME.fullmatch(name):
                raise ValueError("Illegal header line.")
            value = value.strip(b" \t")
            if _CONTROL.search(value):
                raise ValueError("Illegal character in a header.")
            if b"_" in name:
                # WSGI writes '-' and '_' alike: X_Forwarded_For would overrule the X-Forwarded-For of a
                # proxy, which passes it on because it does not know the name.
                continue
            name = name.title()
            if name in headers:
                if name in _ONCE:
                    raise ValueError(f"More than one {name.decode()} header.")
                value = (b"; " if name == b"Cookie" else b", ").join((headers[name], value))
            headers[name] = value
        return headers


class StrictLines:
    """A reader whose lines have no control characters. Raises ValueError."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def readline(self) -> bytes:
        """The next line."""
        line: bytes = self._reader.readline()
        if _CONTROL.search(line.removesuffix(b"\r\n").removesuffix(b"\n")):
            raise ValueError("Illegal character in the request line.")
        return line


def head_problem(headers: Mapping[bytes, bytes], protocol: bytes) -> tuple[str, str] | None:
    """Status and text when a head is to be refused, else None."""
    if b"Transfer-Encoding" in headers:
        return "411 Length Required", "Send the body with a Content-Length."
    length = headers.get(b"Content-Length", b"0")
    if not (length.isdigit() and len(length) <= 19):
        return "400 Bad Request", "Malformed Content-Length Header."
    host = headers.get(b"Host")
    if host is None and protocol == b"HTTP/1.1":
        return "400 Bad Request", "A Host header is required."
    if host is not None and not _HOST.fullmatch(host):
        return "400 Bad Request", "Malformed Host Header."
    return None
