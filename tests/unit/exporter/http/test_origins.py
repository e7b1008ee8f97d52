from __future__ import annotations

import socket

import pytest

from clio_exporter.http.origins import foreign_request, host_allowed


@pytest.mark.parametrize(
    ("authority", "allowed"),
    [
        ("mon.example:9777", True),
        ("MON.example", True),
        ("mon.example.", True),
        ("localhost:9777", True),
        ("127.0.0.1:9777", True),
        ("10.1.2.3", True),
        ("[::1]:9777", True),
        ("evil.example:9777", False),
        ("mon.example.evil.example", False),
        ("xmon.example", False),
        ("", False),
        ("[::1", False),
        ("[::x]:80", False),
        ("mon.example:banana", True),  # the port is the server's business
        ("10.1.2.3:99999", True),
        ("evil.example:banana", False),
        ("mon.example@evil.example", False),
        ("127.0.0.1.evil.example", False),
    ],
)
def test_hosts(authority: str, allowed: bool) -> None:
    assert host_allowed(authority, ("mon.example",)) is allowed


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"Host": "127.0.0.1:9777"}, ""),
        ({"Host": socket.gethostname().upper()}, ""),
        ({"Host": "127.0.0.1:9777", "Origin": "http://127.0.0.1:9777", "Sec-Fetch-Site": "same-origin"}, ""),
        ({"Host": "evil.example:9777", "Origin": "http://evil.example:9777"}, "Host"),
        ({"Host": "127.0.0.1:9777", "Origin": "http://evil.example"}, "Origin"),
        ({"Host": "127.0.0.1:9777", "Origin": "http://127.0.0.1:3000"}, "Origin"),
        ({"Host": "127.0.0.1:9777", "Origin": "null"}, "Origin"),
        ({"Host": "127.0.0.1:9777", "Origin": ""}, "Origin"),
        ({"Host": "127.0.0.1:9777", "Sec-Fetch-Site": "cross-site"}, "Sec-Fetch-Site"),
        ({"Host": "127.0.0.1:9777", "Sec-Fetch-Site": "same-site"}, "Sec-Fetch-Site"),
        ({}, "Host"),
    ],
)
def test_requests_of_other_sites(headers: dict[str, str], refused: str) -> None:
    problem = foreign_request(headers, ())
    assert (problem is None) == (not refused)
    assert refused in (problem or "")


def test_names_that_are_given_replace_the_host_s_own() -> None:
    assert foreign_request({"Host": "mon.example"}, ("mon.example",)) is None
    assert foreign_request({"Host": socket.gethostname()}, ("mon.example",)) is not None
