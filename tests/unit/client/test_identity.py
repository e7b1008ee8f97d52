from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from clio_client.transport.identity import host_mark, routing_identity

USUAL: dict[str, Any] = {
    "reply_host": "10.0.0.9",
    "reply_port": 9778,
    "role": "exporter",
    "host": "monitor 0123",
    "local": "10.0.0.9",
    "endpoint": "tcp://10.0.0.1:9416",
}


def test_a_runtime_finds_the_reply_host_before_the_first_colon() -> None:
    identity = routing_identity(**USUAL).decode()
    host, port, name = identity.split(":")
    assert (host, port) == ("10.0.0.9", "9778")
    assert name.startswith("clio-exporter-")
    assert len(identity) < 200


@pytest.mark.parametrize(
    "other",
    [
        {"reply_host": "10.0.0.8"},
        {"reply_port": 9779},
        {"role": "control-api"},
        {"host": "monitor 4567"},
        {"local": "172.17.0.2"},
        {"endpoint": "tcp://10.1.0.1:9416"},
        {"endpoint": "tcp://10.0.0.1:9426"},
    ],
    ids=str,
)
def test_whoever_else_asks_or_is_asked_has_another_identity(other: dict[str, Any]) -> None:
    assert routing_identity(**{**USUAL, **other}) != routing_identity(**USUAL)


def test_parts_do_not_run_into_each_other() -> None:
    one = routing_identity(**{**USUAL, "host": "ab", "local": "c"})
    assert one != routing_identity(**{**USUAL, "host": "a", "local": "bc"})


def test_it_is_the_same_after_a_restart() -> None:
    program = (
        "from clio_client.transport.identity import host_mark, routing_identity\n"
        f"print(routing_identity(**{ {**USUAL, 'host': None}!r} | {{'host': host_mark()}}).decode())"
    )
    said = [
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    ]
    assert said == [routing_identity(**{**USUAL, "host": host_mark()}).decode() + "\n"] * 2


@pytest.mark.parametrize("role", ["", "a:b", "Exporter", "x" * 30, "a\nb", "a b"])
def test_a_role_is_a_short_word(role: str) -> None:
    with pytest.raises(ValueError, match="role"):
        routing_identity(**{**USUAL, "role": role})
