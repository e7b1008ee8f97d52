"""What proxies say is believed of as many as there are, and of nobody else."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clio_client.config.errors import ConfigError
from clio_control_api.cli import application, settings_from
from clio_control_api.exposure import Auth, auth_of, forwarding_header
from clio_control_api.proxies import ForwardedMiddleware, client_of
from clio_control_api.settings import Settings

INNER = (ipaddress.ip_network("10.0.0.0/24"),)


@pytest.mark.parametrize(
    ("header", "hops", "client"),
    [
        ("", 1, None),
        ("192.0.2.1", 0, None),
        ("192.0.2.1", 1, "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1", 1, "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1,10.0.0.2", 2, "192.0.2.1"),
        ("192.0.2.1", 2, None),  # it did not come through both
        ("192.0.2.1:4711", 1, "192.0.2.1"),
        ("2001:db8::1", 1, "2001:db8::1"),
        ("[2001:DB8::1]", 1, "2001:db8::1"),
        ("[2001:db8::1]:4711", 1, "2001:db8::1"),
        ("::ffff:192.0.2.1", 1, "192.0.2.1"),
        ("unknown", 1, None),
        ("_hidden", 1, None),
        ("192.0.2.1\x00", 1, None),
        ("192.0.2.300", 1, None),
        ("localhost", 1, None),
        ("192.0.2.1,", 1, None),
        ("anna", 1, None),
        ("192.0.2.1:x", 1, None),
        ("10.0.0.1 admin=1", 1, None),
    ],
)
def test_only_addresses_are_taken_and_only_from_the_hops(header: str, hops: int, client: str | None) -> None:
    assert client_of("127.0.0.1", header, hops) == client


@pytest.mark.parametrize(
    ("peer", "header", "hops", "client"),
    [
        ("10.0.0.1", "192.0.2.1", 1, "192.0.2.1"),
        ("10.0.1.1", "192.0.2.1", 1, None),
        ("::ffff:10.0.0.1", "192.0.2.1", 1, "192.0.2.1"),
        ("10.0.0.1", "192.0.2.1, 10.0.0.2", 2, "192.0.2.1"),
        ("10.0.0.1", "192.0.2.1, 10.0.1.2", 2, None),
        ("", "192.0.2.1", 1, None),
    ],
)
def test_where_proxies_are_named_only_they_are_believed(
    peer: str, header: str, hops: int, client: str | None
) -> None:
    assert client_of(peer, header, hops, INNER) == client


@given(st.text(max_size=80), st.integers(1, 4))
def test_whatever_is_sent_is_an_address_or_nothing(header: str, hops: int) -> None:
    found = client_of("127.0.0.1", header, hops)
    assert found is None or ipaddress.ip_address(found)


def passed_on(hops: int, **headers: str) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], _: Any) -> list[bytes]:
        seen.append(environ)
        return []

    environ = {"REMOTE_ADDR": "127.0.0.1", "wsgi.url_scheme": "http", "HTTP_HOST": "inner:5000"}
    environ |= {f"HTTP_X_FORWARDED_{name}": value for name, value in headers.items()}
    ForwardedMiddleware(app, hops)(environ, lambda *_: None)
    return {name: seen[0][name] for name in ("REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST")}


def test_scheme_and_host_are_those_of_the_first_proxy() -> None:
    told = {"FOR": "192.0.2.1", "PROTO": "HTTPS", "HOST": "Control.example:8443"}
    outer = {"REMOTE_ADDR": "192.0.2.1", "wsgi.url_scheme": "https", "HTTP_HOST": "Control.example:8443"}
    direct = {"REMOTE_ADDR": "127.0.0.1", "wsgi.url_scheme": "http", "HTTP_HOST": "inner:5000"}
    assert passed_on(1, **told) == outer
    assert passed_on(2, **told) == direct
    # What a client adds stands before what our proxies add.
    assert passed_on(1, **{k: f"evil, {v}" for k, v in told.items()}) == outer
    # One value alone is the last proxy's.
    assert passed_on(2, **{**told, "FOR": "192.0.2.1, 10.0.0.1"}) == outer
    assert passed_on(1, FOR="192.0.2.1", PROTO="file", HOST="a/b") == {**direct, "REMOTE_ADDR": "192.0.2.1"}


# --- what needs a token -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "auth"),
    [
        ({}, Auth.ACTIONS),
        ({"allowed_hosts": ("a",)}, Auth.ACTIONS),
        ({"host": "::1"}, Auth.ACTIONS),
        ({"auth": "actions", "tokens_file": Path("t")}, Auth.ACTIONS),
        ({"tokens_file": Path("t")}, Auth.ALL),
        ({"external_url": "https://x"}, Auth.ALL),
        ({"proxy_hops": 1}, Auth.ALL),
        ({"trusted_proxies": INNER}, Auth.ALL),
        ({"host": "0.0.0.0", "tokens_file": Path("t")}, Auth.ALL),
        ({"auth": "all"}, Auth.ALL),
        ({"auth": "none"}, Auth.NONE),
    ],
    ids=str,
)
def test_what_needs_a_token(settings: dict[str, Any], auth: Auth) -> None:
    assert auth_of(Settings(**settings)) is auth


OPEN = [
    {"host": "0.0.0.0"}, {"host": "0.0.0.0", "tokens_file": Path("t")}, {"external_url": "https://x"},
    {"proxy_hops": 1}, {"trusted_proxies": INNER},
]  # fmt: skip


@pytest.mark.parametrize("more", [*OPEN, {"allowed_hosts": ("x",)}, {"tokens_file": Path("t")}], ids=str)
def test_open_and_reachable_does_not_start(more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        auth_of(Settings(auth="none", **more))


@pytest.mark.parametrize("more", OPEN, ids=str)
def test_open_reads_and_reachable_does_not_start(more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        auth_of(Settings(auth="actions", **more))


def test_an_address_without_a_tokens_file_is_refused_whatever_auth_says() -> None:
    with pytest.raises(ConfigError, match="tokens-file"):
        auth_of(Settings(auth="all", host="0.0.0.0"))


@pytest.mark.parametrize("name", ["X-Forwarded-For", "x-forwarded-server", "Forwarded", "VIA", "X-Real-Ip"])
def test_headers_of_proxies(name: str) -> None:
    assert forwarding_header(["Host", name]) == name
    assert forwarding_header(["Host", "Referer", "Forwarded-Not", "Viable"]) is None


def test_proxies_in_the_settings_file(tmp_path: Path) -> None:
    config, tokens = tmp_path / "c.yaml", tmp_path / "t"
    text = "host: 0.0.0.0\nproxy_hops: 1\ntokens_file: t\n"
    config.write_text(text + "trusted_proxies: [10.0.0.5, 10.1.0.0/16, '2001:db8::/32']\n")
    settings = settings_from({"config": str(config)}, {}, tmp_path)
    assert [str(net) for net in settings.trusted_proxies] == ["10.0.0.5/32", "10.1.0.0/16", "2001:db8::/32"]
    config.write_text("trusted_proxies: [proxy.example]\n")
    with pytest.raises(ConfigError, match="not an address or network"):
        settings_from({"config": str(config)}, {}, tmp_path)
    config.write_text(text)
    tokens.write_text("a:viewer:" + "0" * 64)
    tokens.chmod(0o600)
    flags = {"config": str(config), "port": "0"}
    with application(settings_from(flags, {}, tmp_path), {}, tmp_path) as built:
        assert any("trusted_proxies" in warning for warning in built.warnings)
