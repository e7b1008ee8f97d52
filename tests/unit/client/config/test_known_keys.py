"""What of a runtime's configuration is shown: known keys with values of the known shape, nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clio_client.config.known_keys import publishable
from clio_client.config.runtime_conf import flatten, parse_runtime_config
from tests.paths import ROOT
from tests.unit.client.config.helpers import unhurried

SECRET = "Zq7hunter2Zq7"
POOL = {"mod_name": "clio_cte_core", "pool_name": "cte", "pool_query": "local", "pool_id": "512.0"}

# Kinds of secrets an operator may have put into the file, each under a name or in a form of its own.
PLANTED: dict[str, dict[str, Any]] = {
    **{
        name: {"networking": {"port": 9413, name: SECRET}}
        for name in (
            "password", "passwd", "pwd", "pass", "dbpass", "db_pw", "passphrase", "secret", "client_secret",
            "token", "auth_token", "apiToken", "bearer", "api_key", "apikey", "APIKEY", "s3_key", "s3key",
            "access_key_id", "secret_access_key", "private_key", "ssh_key", "psk", "wpa-psk", "pin",
            "otp_seed", "salt", "sas", "sig", "signature", "cookie", "session", "credentials", "creds",
            "login", "kerberos_keytab", "hmac", "jwt", "dsn", "connection_string", "note", "comment", "x",
            "kennwort", "mot_de_passe", "contrasena", "密码",
        )
    },
    "encryption.key": {"encryption": {"key": SECRET}},
    "a section under a harmless name": {"site": {"a": [{"b": SECRET}]}},
    "a list": {"compose": [{**POOL, "peers": [SECRET, 1]}]},
    "a key": {"networking": {SECRET + " x": 1}, f"{SECRET}=1": {"a": 1}},
    "a key that is a token": {"compose": [{**POOL, f"ghp_{SECRET}{SECRET}": "admin"}]},
    "a number": {"runtime": {"num_threads": 4, "code": 5234567890123}},
    "name and value": {"env": [{"name": "DB_PASSWORD", "value": SECRET}, {"name": "X", "value": SECRET}]},
    "instead of a number": {"networking": {"port": SECRET}},
    "instead of a size": {"compose": [{**POOL, "capacity": SECRET + "GB"}]},
    "instead of a section": {"runtime": SECRET},
    "instead of a list": {"compose": SECRET},
    "an entry that is no pool": {"compose": [SECRET]},
    "a prompt": {"compose": [{**POOL, "label_prompts": {"a": f"use {SECRET}"}}]},
    "an endpoint": {"compose": [{**POOL, "label_endpoint": f"https://llm/v1/{SECRET}"}]},
    **{
        text: {"compose": [{**POOL, "storage": [{"path": text.replace("%", SECRET)}]}]}
        for text in (
            "s3://u:%@bucket/x", "s3://%@bucket", "s3://u:a/%@b", "redis://:%@db:6379/0", "https://h/x?sig=%",
            "https://h/x?a=1&X-Amz-Signature=%", "https://h/x#access_token=%",
            "https://hooks.slack.com/services/T/B/%", "https://discord.com/api/webhooks/1/%",
            "https://a.webhook.office.com/%", "https://api.telegram.org/bot123456:%/x", "/x --password %",
            "/x --password=%", "/x -u root:%", "/x password=%", "/x password: %", "/x psk=%", "/x dbpass='%'",
            "/x s3_key=%", "Authorization: Bearer %", "Authorization: Basic %", "/ghp_%%", "/glpat-%%",
            "/xoxb-%%", "/sk-%%", "/hf_%%", "/npm_%%",
            "-----BEGIN PRIVATE KEY-----\n%\n-----END PRIVATE KEY-----", "AccountKey=%;x", "/x?token=%",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("document", PLANTED.values(), ids=PLANTED)
def test_a_planted_secret_is_not_shown(document: dict[str, Any]) -> None:
    shown = publishable(document)
    for seen in (repr(shown), repr(flatten(shown))):
        assert SECRET not in seen
        assert "5234567890123" not in seen


def test_enough_kinds_are_planted() -> None:
    assert len(PLANTED) >= 80


def test_known_keys_are_shown_and_of_others_that_they_are_there() -> None:
    shown = publishable({
        "networking": {"port": 9413, "auth_token": SECRET, "hostfile": "/etc/clio/hosts"},
        "compose": [{**POOL, "storage": [{"path": "ram::a", "score": 1.0, "colour": "red"}],
        "next_pool_id": None}], "extra": {"a": {"b": [1, 2]}}, "viz": {},
    })  # fmt: skip
    digest = shown["networking"].pop("auth_token")
    assert re.fullmatch("<hidden [0-9a-f]{4}>", digest)
    assert shown["networking"] == {"port": 9413, "hostfile": "/etc/clio/hosts"}
    assert shown["compose"][0].pop("storage")[0].keys() == {"path", "score", "colour"}
    assert shown["compose"][0] == {**POOL, "next_pool_id": None}
    assert shown["extra"].startswith("<hidden ")
    assert shown["viz"] == {}


def test_digests_tell_values_apart_and_nothing_else() -> None:
    def shown(value: Any, key: str = "a") -> Any:
        return publishable({key: value})[key]

    assert shown({"x": 1, "y": [2]}) == shown({"y": [2], "x": 1})
    assert len({shown(value) for value in (1, 2, "x", [1], [1, 2], {"b": 1}, {"b": 2}, {"c": 1}, None)}) == 9
    assert shown(SECRET) != shown(SECRET, "b"), "equal values under two names are not shown to be equal"
    assert shown({1: "x", "a": 2, None: 3}) == shown({None: 3, "a": 2, 1: "x"})


def test_the_project_s_own_configuration_is_shown_in_full() -> None:
    document = parse((ROOT / "deploy" / "cluster" / "clio.yaml").read_text())
    assert publishable(document) == document


def test_a_number_of_thousands_of_digits_is_hidden() -> None:
    assert publishable(parse(f"x: 0x{'f' * 5000}"))["x"].startswith("<hidden ")


def parse(text: str) -> Any:
    return parse_runtime_config(text, Path("/etc/clio.yaml"), {}, Path("/home/x")).document


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
documents = st.recursive(
    scalars,
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(["networking", "compose", "storage", "path", "port", "a"]), below, max_size=3
        )
    ),
    max_leaves=20,
)


@unhurried
@given(documents, st.text(min_size=1, max_size=30))
def test_no_document_gets_a_secret_out_under_an_unknown_key(document: Any, name: str) -> None:
    hidden = {"doc": document, "x_" + name: SECRET, "compose": [document, {"x_" + name: [SECRET]}]}
    assert SECRET not in repr(publishable(hidden))
    assert flatten(publishable(document)) == flatten(publishable(document))
