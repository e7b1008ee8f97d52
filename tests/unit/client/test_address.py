from __future__ import annotations

import pytest

from clio_client.address import (
    MAX_PORT,
    PORT_OFFSETS,
    join_host_port,
    parse_host_port,
    port_number,
    split_host_port,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9777", ("127.0.0.1", 9777)),
        ("[::1]:80", ("::1", 80)),
        (":9777", ("", 9777)),
        ("host.example:1", ("host.example", 1)),
    ],
)
def test_host_and_port(text: str, address: tuple[str, int]) -> None:
    assert parse_host_port(text) == address
    assert join_host_port(*address) == text


@pytest.mark.parametrize(
    "text",
    ["", "9777", "host", "host:", "host:0", "host:65536", "host:x", "host:+1", "host:1\n", "::1:80", "[::1]",
     "[::1", "[::1]80", "[h]:1", "h:\u0661"],
)  # fmt: skip
def test_what_is_no_host_and_port(text: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|address.:port"):
        parse_host_port(text)


def test_a_port_may_be_left_out_where_it_has_a_default() -> None:
    assert split_host_port("a") == ("a", None)
    assert split_host_port("[::1]") == ("::1", None)
    assert split_host_port("a:x") == ("a", "x")


def test_ports() -> None:
    assert [port_number(text) for text in ("0", "1", "65535", "65536", "", "1 ", "-1")] == [
        None, 1, 65535, None, None, None, None,
    ]  # fmt: skip
    assert port_number("0", low=0) == 0
    assert MAX_PORT + max(PORT_OFFSETS) == 65535
