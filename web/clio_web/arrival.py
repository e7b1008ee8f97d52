"""Whether a whole request has arrived on a socket, without reading it: no thread waits for slow ones."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)
_END = b"\r\n\r\n"
MAX_PIECES = 256
"""In how many pieces a request may come: each is looked at from its beginning."""


def missing(data: bytes, max_head: int, max_body: int) -> int:
    """How many bytes must come at least until the request that begins `data` can be complete.

    0: it can be served. What is too long or malformed can be served too: by its refusal.
    """
    end = data.find(_END)
    if end < 0:
        return 0 if len(data) > max_head else 1
    length = _LENGTH.search(data, 0, end + len(_END))
    body = int(length[1]) if length else 0
    return max(0, end + len(_END) + body - len(data)) if body <= max_body else 0


def missing_hello(data: bytes) -> int:
    """The same of a TLS connection's first record (RFC 8446, section 5.1); what is none can be served too."""
    if data[:1] != b"\x16":
        return 0 if data else 1
    return max(0, 5 + int.from_bytes(data[3:5], "big") - len(data)) if len(data) >= 5 else 5 - len(data)


class Arrival:
    """What has come of the next request on one connection."""

    def __init__(self, limit: int) -> None:
        """At most `limit` bytes are looked at."""
        self._limit = limit
        self._seen = 0
        self._pieces = 0

    def look(self, sock: socket.socket, missing: Callable[[bytes], int]) -> bool | None:
        """Whether what is awaited on the readable `sock` is complete; None when it never will be.

        When more is awaited, the socket is made to be readable (for epoll and its kin) only once that has
        come.
        """
        before = sock.gettimeout()
        sock.settimeout(0.0)
        try:
            # Not the method of an ssl.SSLSocket, which cannot peek.
            data = socket.socket.recv(sock, self._limit, socket.MSG_PEEK)
            more = missing(data)
            if more and (len(data) == self._seen or self._pieces == MAX_PIECES):
                return None  # readable without anything new: the client has ended
            if more or self._pieces:
                # Linux counts what is in the buffer against this mark when it is polled, and when it is read
                # (socket(7), SO_RCVLOWAT).
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(data) + more if more else 1)
            self._seen = len(data) if more else 0
            self._pieces = self._pieces + 1 if more else 0
        except BlockingIOError:
            return False
        except OSError:
            return None
        finally:
            sock.settimeout(before)
        return not more
