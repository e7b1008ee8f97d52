"""Which requests another site has caused."""

from __future__ import annotations

import pytest

from clio_control_api.origins import cross_site, is_loopback, own_origin, parse_authority

OWN = {"http://clio.example:5000"}
ALLOWED = {"https://grafana.example"}
NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", {}),  # no browser
        ("POST", {"Origin": "http://clio.example:5000"}),
        ("POST", {"Origin": "HTTP://Clio.Example:5000", "Sec-Fetch-Site": "same-origin"}),
        ("POST", {"Origin": "http://clio.example:5000", "Sec-Fetch-Site": "same-site"}),
        ("GET", {"Sec-Fetch-Site": "none"}),
        ("GET", {"Sec-Fetch-Site": "Same-Origin"}),
        ("GET", {"Origin": "https://grafana.example", "Sec-Fetch-Site": "cross-site"}),
        ("POST", {"Origin": "https://grafana.example"}),
        ("GET", {"Sec-Fetch-Site": "cross-site", **NAVIGATION}),
        ("HEAD", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "Navigate"}),
        ("GET", {"Sec-Fetch-Site": "same-site", **NAVIGATION}),
    ],
)
def test_what_is_served(method: str, headers: dict[str, str]) -> None:
    assert cross_site(method, headers, OWN, ALLOWED) is None


@pytest.mark.parametrize(
    ("method", "headers", "says"),
    [
        ("GET", {"Origin": "https://evil.example"}, "comes from 'https://evil.example'"),
        ("GET", {"Origin": "null"}, "comes from 'null'"),
        ("GET", {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"}, "comes from"),
        (
            "GET",
            {"Origin": "http://clio.example:5000", "Sec-Fetch-Site": "cross-site"},
            "another site caused",
        ),
        ("GET", {"Sec-Fetch-Site": "cross-site"}, "another site caused"),
        ("GET", {"Sec-Fetch-Site": "same-site"}, "another site caused"),
        ("POST", {"Sec-Fetch-Site": "cross-site", **NAVIGATION}, "another site caused"),
        ("GET", {"Sec-Fetch-Site": "cross-site", **NAVIGATION, "Sec-Fetch-Mode": "cors"}, "another site"),
        ("GET", {"Sec-Fetch-Site": "cross-site", **NAVIGATION, "Sec-Fetch-Dest": "iframe"}, "another site"),
        ("GET", {"Sec-Fetch-Site": "x" * 50}, "Sec-Fetch-Site: " + "x" * 20 + ")"),
        ("GET", {"Origin": "y" * 200}, "'" + "y" * 100 + "'"),
    ],
)
def test_what_is_refused(method: str, headers: dict[str, str], says: str) -> None:
    refused = cross_site(method, headers, OWN, ALLOWED)
    assert refused is not None
    assert says in refused


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True), ("LOCALHOST.", True), ("a.localhost", True), ("127.8.9.1", True), ("::1", True),
        ("localhost.evil.example", False), ("alocalhost", False), ("10.0.0.1", False), ("::2", False),
        ("", False), ("localhost..", False),
    ],
)  # fmt: skip
def test_this_machine(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("A.example", ("a.example", None)), ("a:1", ("a", 1)), ("a:65535", ("a", 65535)), ("a:", ("a", None)),
        ("a:65536", None), ("a:0", ("a", 0)), ("[::1]", ("::1", None)), ("[0:0::1]:80", ("::1", 80)),
        ("[::g]", None), ("[1.2.3.4]", None), ("", None), (":80", None), ("a b", None), ("a:x", None),
        ("a" * 253, ("a" * 253, None)), ("a" * 254, None), ("a:123456", None),
        *((odd, None) for odd in ("[::", "[x]", "[:::]", "::1", "a/b", "u@a", "a:1:2", "é")),
    ],
)  # fmt: skip
def test_host_and_port(text: str, parsed: tuple[str, int | None] | None) -> None:
    assert parse_authority(text) == parsed


@pytest.mark.parametrize(
    ("scheme", "authority", "origin"),
    [
        ("http", "a", "http://a"), ("http", "a:80", "http://a"), ("http", "a:443", "http://a:443"),
        ("https", "a:443", "https://a"), ("https", "a:80", "https://a:80"), ("HTTP", "A:81", "http://a:81"),
        ("http", "[::1]:80", "http://[::1]"), ("http", "[::1]:5000", "http://[::1]:5000"),
        ("ftp", "a:80", "ftp://a:80"), ("http", "a:x", None),
    ],
)  # fmt: skip
def test_an_origin_as_browsers_write_it(scheme: str, authority: str, origin: str | None) -> None:
    assert own_origin(scheme, authority) == origin
