from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clio_client.config.masking import is_secret_name, mask_text
from tests.unit.client.config.helpers import unhurried

# One name for each word and each ending the module knows, so that none can go unnoticed.
SECRET_NAMES = [
    "password", "my_passwords", "passwd", "passphrase", "passcode", "secret", "client-secrets", "credential",
    "credentials", "myapikeys", "accesskeyid", "privatekeyfile", "authkeys", "signingkeyfile",
    "encryptionkeyid", "sharedkeyfile", "masterkeyfile", "sessionkeyid", "accountkeyname", "storagekeyname",
    "servicekeyname", "sshkeyfile", "hmackeyid", "htpasswd", "keytabfile", "signatures", "pass", "pwd", "pw",
    "auth", "authorization", "authentication", "oauth", "oauth2", "bearer", "jwt", "cookie", "sas", "key",
    "keys", "psk", "sig", "otp", "pin", "pat", "cred", "creds", "dbpass", "apptoken", "apptokens", "dbpwd",
    "wifipsk", "DBPasswd", "dbPassword", "AUTH-TOKEN", "x.api.key", "AWSAccessKeyId", "s3_key",
    "PrivateKeyPath", "basicAuth",
]  # fmt: skip
PLAIN_NAMES = [
    "author", "authority", "tokenizer", "monkey", "pool_name", "path", "port", "bypass", "compass",
    "overpass", "surpass", "passes", "secs", "metadata_log_path", "capacity", "pinned", "signal", "pattern",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)
    assert (
        mask_text(f"{name}=x1 --{name} x2 {name}: x3")
        == f"{name}=<secret> --{name} <secret> {name}: <secret>"
    )


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_names_of_other_things(name: str) -> None:
    assert not is_secret_name(name)
    assert mask_text(f"{name}=x --{name} y {name}: z") == f"{name}=x --{name} y {name}: z"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("redis://user:hunter2@db:6379/0", "redis://<secret>@db:6379/0"),
        ("https://abc@example.org/x", "https://<secret>@example.org/x"),
        ("amqp://u:p@ss@h/v", "amqp://<secret>@h/v"),
        ("amqp://u:pa/ss@h/v", "amqp://<secret>@h/v"),
        ("s3://:onlypass@bucket", "s3://<secret>@bucket"),
        ("a http://u:p@h and ftp://v:q@k b", "a http://<secret>@h and ftp://<secret>@k b"),
        ("http://host:80/path@x", "http://host:80/path@x"),
        ("http://host/path", "http://host/path"),
        ("http://host/a:b?sig=abc&se=2026 x", "http://host/a:b?<secret> x"),
        ("https://u:p@h:80/x?y=1#z", "https://<secret>@h:80/x?<secret>"),
        ("http://host/#access_token=abc", "http://host/?<secret>"),
        ("https://hooks.slack.com/services/T0/B0/abc", "https://hooks.slack.com/<secret>"),
        ("https://discord.com/api/webhooks/1/abc", "https://discord.com/<secret>"),
        ("https://a.webhook.office.com/b/c", "https://a.webhook.office.com/<secret>"),
        ("https://api.telegram.org/bot123456789:abc/send", "https://api.telegram.org/<secret>"),
        ("https://chat.googleapis.com/v1/spaces/a", "https://chat.googleapis.com/<secret>"),
        ("host=db password=hunter2 port=1", "host=db password=<secret> port=1"),
        ("--api-key=abc -v", "--api-key=<secret> -v"),
        ("run --password abc -v", "run --password <secret> -v"),
        ("run -u root:abc db", "run -u <secret> db"),
        ("run --user root:abc db", "run --user <secret> db"),
        ("x?token=abc&y=1", "x?token=<secret>&y=1"),
        ("password='two words' z", "password=<secret> z"),
        ('{"password": "two words"}', '{"password": <secret>}'),
        ("password:abc", "password:<secret>"),
        ("Bearer abcdefgh.ijk", "Bearer <secret>"),
        ("a basic YWxhZGRpbjpvcGVu b", "a basic <secret> b"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\n", "<secret>\n"),
        ("-----BEGIN PRIVATE KEY-----\nabc", "<secret>"),
        ("ram::chi_default_bdev", "ram::chi_default_bdev"),
        ("${CLIO_STORAGE_ROOT}/x", "${CLIO_STORAGE_ROOT}/x"),
        ("/mnt/nvme/$USER/clio/key_value_store.dat", "/mnt/nvme/$USER/clio/key_value_store.dat"),
        ("me@example.org", "me@example.org"),
    ],
)
def test_secrets_inside_values(text: str, masked: str) -> None:
    assert mask_text(text) == masked


TOKENS = [
    "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "gloas-", "gldt-", "glrt-", "glsa_",
    "xoxa-", "xoxb-", "xoxe-", "xoxo-", "xoxp-", "xoxr-", "xoxs-", "xapp-", "AKIA", "ASIA", "sk-", "sk_live_",
    "rk_test_", "pk_live_", "whsec_", "AIza", "ya29.", "hf_", "npm_", "pypi-", "dop_v1_", "SG.", "hvs.",
    "hvb.", "shpat_", "shpss_", "tskey-", "dckr_pat_", "xkeysib-", "lin_api_", "ATATT", "AGE-SECRET-KEY-",
    "sq0atp-", "rubygems_",
]  # fmt: skip


@pytest.mark.parametrize("prefix", TOKENS)
def test_tokens_by_what_they_begin_with(prefix: str) -> None:
    assert mask_text(f"/data/{prefix}ABCDEFGHIJKL0123/x") in ("/data/<secret>", "/data/<secret>/x")
    assert mask_text(f"x{prefix}ABCDEFGHIJKL0123") == f"x{prefix}ABCDEFGHIJKL0123"


def test_a_jwt_is_a_token() -> None:
    assert mask_text("a eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln b") == "a <secret> b"
    assert mask_text("eyJustAName") == "eyJustAName"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece",
    ["a", "x://", "x://b:c", "x://a/", "a.b-", "a= ", 'a="', "key ", 'key="', "Bearer ", "-----BEGIN A", " ",
    ":",
     "-u ", "-u a", "eyJ", "sk-"],
)  # fmt: skip
def test_masking_long_values_takes_no_quadratic_time(piece: str) -> None:
    """A pattern that backtracks over a file's size would run for minutes here, not milliseconds."""
    assert mask_text(piece * (200_000 // len(piece)))


@unhurried
@given(st.text(alphabet=st.sampled_from("ab:/-=@?#\"'<> \n.ky&"), max_size=60))
def test_masking_twice_is_masking_once(text: str) -> None:
    text = text.replace("k", "key")
    once = mask_text(text)
    assert mask_text(once) == once
