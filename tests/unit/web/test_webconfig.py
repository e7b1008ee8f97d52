from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import bcrypt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from clio_web.auth import Busy, PasswordChecker, hash_cost
from clio_web.errors import WebConfigError
from clio_web.webconfig import WebConfigStore, load
from tests.unit.web.support import Authority, private_pem, write

HASH = bcrypt.hashpw(b"open sesame", bcrypt.gensalt(4)).decode()
PAIR = "cert_file: server.pem\n  key_file: server.key"


@pytest.fixture
def directory(tmp_path: Path, authority: Authority) -> Path:
    authority.issue(tmp_path, "server")
    authority.issue(tmp_path, "other")
    write(tmp_path / "ca.pem", authority.pem)
    write(tmp_path / "empty.pem", "")
    write(tmp_path / "locked.key", private_pem(ec.generate_private_key(ec.SECP256R1()), b"secret"), 0o600)
    shutil.copy(tmp_path / "server.key", tmp_path / "public.key")
    (tmp_path / "public.key").chmod(0o644)
    return tmp_path


def configure(directory: Path, text: str) -> Path:
    return write(directory / "web.yml", text)


GOOD = {
    "empty": "",
    "null sections": "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\n",
    "users": f"basic_auth_users:\n  alice: {HASH}\n  '7': {HASH.replace('$2b$', '$2y$')}\n",
    "tls": f"tls_server_config:\n  {PAIR}\n",
    "client certificates": f"tls_server_config:\n  {PAIR}\n  client_ca_file: ca.pem\n"
    "  client_auth_type: RequireAndVerifyClientCert\n",
    "optional client certificates": f"tls_server_config:\n  {PAIR}\n  client_ca_file: ca.pem\n"
    "  client_auth_type: VerifyClientCertIfGiven\n",
    "no client certificates": f"tls_server_config:\n  {PAIR}\n  client_auth_type: NoClientCert\n",
    "versions and ciphers": f"tls_server_config:\n  {PAIR}\n  min_version: TLS12\n  max_version: TLS12\n"
    "  prefer_server_cipher_suites: false\n  cipher_suites:\n"
    "  - TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256\n  - TLS_AES_128_GCM_SHA256\n",
    "only 1.3": f"tls_server_config:\n  {PAIR}\n  min_version: TLS13\n",
    "curve": f"tls_server_config:\n  {PAIR}\n  curve_preferences: [CurveP256]\n",
    "headers": "http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n"
    "    X-Content-Type-Options: nosniff\n    Strict-Transport-Security: max-age=31536000\n",
}

# name -> (text, line in the error or None, a part of the message)
BAD = {
    "not yaml": ("a: [", 1, "not valid YAML"),
    "a list": ("- a\n", 1, "not a mapping"),
    "unknown section": ("\ntls_config: {}\n", 2, "unknown key 'tls_config'"),
    "unknown key": (f"tls_server_config:\n  {PAIR}\n  keyfile: x\n", 4, "'tls_server_config.keyfile'"),
    "twice": (f"tls_server_config:\n  {PAIR}\n  cert_file: other.pem\n", 4, "given twice"),
    "no key": ("tls_server_config:\n  cert_file: server.pem\n", 1, "neither key nor key_file"),
    "no certificate": ("tls_server_config:\n  key_file: server.key\n", 1, "neither cert nor cert_file"),
    "certificate missing": (
        "tls_server_config:\n  cert_file: gone.pem\n  key_file: server.key\n",
        2,
        "gone.pem': No such file",
    ),
    "key missing": ("tls_server_config:\n  cert_file: server.pem\n  key_file: gone.key\n", 3, "gone.key"),
    "key of another": (
        "tls_server_config:\n  cert_file: server.pem\n  key_file: other.key\n",
        2,
        "key values mismatch",
    ),
    "not a certificate": (
        "tls_server_config:\n  cert_file: empty.pem\n  key_file: server.key\n",
        2,
        "cannot be used",
    ),
    "client authority missing": (
        f"tls_server_config:\n  {PAIR}\n  client_ca_file: gone.pem\n"
        "  client_auth_type: RequireAndVerifyClientCert\n",
        4,
        "gone.pem",
    ),
    "client authority without policy": (
        f"tls_server_config:\n  {PAIR}\n  client_ca_file: ca.pem\n",
        4,
        "client_auth_type",
    ),
    "client policy unknown": (f"tls_server_config:\n  {PAIR}\n  client_auth_type: Maybe\n", 4, "'Maybe'"),
    "version unknown": (f"tls_server_config:\n  {PAIR}\n  min_version: TLS14\n", 4, "unknown TLS version"),
    "cipher unknown": (f"tls_server_config:\n  {PAIR}\n  cipher_suites: [TLS_NONE]\n", 4, "unknown cipher"),
    "curve unknown": (f"tls_server_config:\n  {PAIR}\n  curve_preferences: [P1]\n", 4, "unknown curve"),
    "plain password": ("basic_auth_users:\n  alice: hunter2\n", 2, "not a bcrypt hash"),
    "header unknown": ("http_server_config:\n  headers:\n    Server: x\n", 3, "cannot be configured"),
    "header value": ("http_server_config:\n  headers:\n    X-Frame-Options: allow\n", 3, "not allowed"),
    "not a boolean": ("http_server_config:\n  http2: maybe\n", 2, "not a boolean"),
    "not a list": (f"tls_server_config:\n  {PAIR}\n  cipher_suites: {{a: b}}\n", 4, "not a list"),
}

# Accepted by Prometheus and refused here, because Python's ssl cannot do it or it would be unsafe.
STRICTER = {
    "unverified certificates": (
        f"tls_server_config:\n  {PAIR}\n  client_auth_type: RequireAnyClientCert\n",
        "Python's ssl module",
    ),
    "requested certificates": (
        f"tls_server_config:\n  {PAIR}\n  client_auth_type: RequestClientCert\n",
        "Python's ssl module",
    ),
    "any public authority": (
        f"tls_server_config:\n  {PAIR}\n  client_auth_type: RequireAndVerifyClientCert\n",
        "without client_ca_file",
    ),
    "withdrawn versions": (f"tls_server_config:\n  {PAIR}\n  min_version: TLS10\n", "RFC 8996"),
    "several curves": (
        f"tls_server_config:\n  {PAIR}\n  curve_preferences: [X25519, CurveP256]\n",
        "a single curve",
    ),
    "tls settings without certificate": (
        "tls_server_config:\n  min_version: TLS13\n",
        "neither cert nor cert_file",
    ),
    "public key file": (
        "tls_server_config:\n  cert_file: server.pem\n  key_file: public.key\n",
        "open to all users (mode 0644). Run: chmod 0640",
    ),
}


def promtool(path: Path) -> int:
    run = subprocess.run(
        ["promtool", "check", "web-config", str(path)], capture_output=True, timeout=20, check=False
    )
    return run.returncode


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is missing"
)


@pytest.mark.parametrize("name", GOOD)
def test_good_files(directory: Path, name: str) -> None:
    config = load(configure(directory, GOOD[name]))
    assert (config.tls is not None) == ("cert_file" in GOOD[name])
    assert bool(config.users) == (name == "users")


@needs_promtool
def test_prometheus_accepts_the_good_files(directory: Path) -> None:
    assert {name: promtool(configure(directory, text)) for name, text in GOOD.items()} == dict.fromkeys(
        GOOD, 0
    )


@pytest.mark.parametrize("name", BAD)
def test_bad_files(directory: Path, name: str) -> None:
    text, line, part = BAD[name]
    path = configure(directory, text)
    with pytest.raises(WebConfigError) as caught:
        load(path)
    assert part in str(caught.value)
    assert caught.value.path == str(path)
    assert caught.value.line == line
    assert caught.value.remedy
    assert "hunter2" not in str(caught.value)


@needs_promtool
def test_prometheus_refuses_the_bad_files(directory: Path) -> None:
    accepted = [name for name, (text, _, _) in BAD.items() if promtool(configure(directory, text)) == 0]
    assert accepted == []


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "x: " + "{a: " * 5000, "\n".join(" " * n + "a:" for n in range(999))]
)
@pytest.mark.timeout(20)
def test_a_deep_file_is_an_error_with_a_line(tmp_path: Path, text: str) -> None:
    write(tmp_path / "web.yml", "basic_auth_users:\n  a: " + text if text[0] == "[" else text)
    with pytest.raises(WebConfigError, match="nested more than 32 levels deep") as caught:
        load(tmp_path / "web.yml")
    assert caught.value.line == {"[": 2, "x": 1, "a": 33}[text[0]]


@pytest.mark.parametrize("name", STRICTER)
def test_files_that_only_prometheus_accepts(directory: Path, name: str) -> None:
    text, part = STRICTER[name]
    with pytest.raises(WebConfigError) as caught:
        load(configure(directory, text))
    assert part in str(caught.value)


@needs_promtool
def test_prometheus_accepts_the_files_refused_here(directory: Path) -> None:
    assert {n: promtool(configure(directory, t)) for n, (t, _) in STRICTER.items()} == dict.fromkeys(
        STRICTER, 0
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (f"tls_server_config:\n  {PAIR}\n  cert: inline\n", "both given"),
        ("tls_server_config:\n  cert_file: server.pem\n  key_file: locked.key\n", "encrypted"),
        (
            f"tls_server_config:\n  {PAIR}\n  client_ca_file: empty.pem\n"
            "  client_auth_type: VerifyClientCertIfGiven\n",
            "no usable certificate",
        ),
        (f"tls_server_config:\n  {PAIR}\n  client_allowed_sans: [a]\n", "checks nothing"),
        ("rate_limit:\n  interval: 1s\n", "rate_limit is not supported"),
    ],
)
def test_other_refusals(directory: Path, text: str, part: str) -> None:
    with pytest.raises(WebConfigError, match=part):
        load(configure(directory, text))


def test_inline_key(directory: Path) -> None:
    def block(name: str) -> str:
        return "|\n" + "".join(f"    {line}\n" for line in (directory / name).read_text().splitlines())

    text = f"tls_server_config:\n  cert: {block('server.pem')}  key: {block('server.key')}"
    path = configure(directory, text)
    assert load(path).tls is not None
    path.chmod(0o644)
    with pytest.raises(WebConfigError, match="open to all users"):
        load(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WebConfigError, match=r"web\.yml.*No such file"):
        load(tmp_path / "web.yml")


def test_store_follows_changes_and_keeps_what_worked(directory: Path) -> None:
    path = configure(directory, f"tls_server_config:\n  {PAIR}\n")
    now = [0.0]
    store = WebConfigStore(path, clock=lambda: now[0])
    first = store.current()
    assert store.current() is first
    write(path, f"tls_server_config:\n  {PAIR}\nbasic_auth_users:\n  a: {HASH}\n")
    second = store.current()
    assert set(second.users) == {"a"}
    for broken in ("tls_server_config: 3\n", "basic_auth_users: {}\n", "x: ["):
        write(path, broken)
        assert store.current() is second
        with pytest.raises(WebConfigError):
            store.reload()
    write(path, "tls_server_config:\n  cert_file: late.pem\n  key_file: server.key\n")
    assert store.current() is second
    shutil.copy(directory / "server.pem", directory / "late.pem")  # a file that was not watched yet
    now[0] += WebConfigStore.RETRY + 1
    assert store.current().files[1].name == "late.pem"


def test_hash_cost() -> None:
    assert hash_cost(HASH) == 4
    assert hash_cost("$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG") == 10
    for bad in ("", "hunter2", HASH[:-1], HASH + "x", "$1$" + HASH[4:], HASH.replace("$04$", "$99$")):
        assert hash_cost(bad) is None


def test_password_checker() -> None:
    checker = PasswordChecker(cache_size=2)
    users = {"alice": HASH}
    for _ in range(5):
        assert checker.check(users, "alice", "open sesame")
    assert checker.computed == 1
    for n, (user, password) in enumerate(
        [("alice", "wrong"), ("alice", "wrong"), ("bob", "open sesame"), ("", "")]
    ):
        assert not checker.check(users, user, password)
        assert checker.computed == 2 + n  # an unknown user costs as much as a known one
    assert not checker.check(
        {"alice": bcrypt.hashpw(b"new", bcrypt.gensalt(4)).decode()}, "alice", "open sesame"
    )
    assert not checker.check({}, "alice", "open sesame")
    assert not checker.check(users, "alice", "open sesame\0")
    assert b"open sesame" not in b"".join(checker._cache)


def test_long_passwords_are_compared_as_prometheus_does() -> None:
    long = "p" * 100
    users = {"a": bcrypt.hashpw(long[:72].encode(), bcrypt.gensalt(4)).decode()}
    assert PasswordChecker().check(users, "a", long)
    assert not PasswordChecker().check(users, "a", long[:71])


def test_who_tries_passwords_takes_neither_threads_nor_all_places() -> None:
    checker = PasswordChecker(max_wait=10, places=3, places_per_address=2)
    users = {"a": HASH, "b": HASH}
    assert checker.check(users, "a", "open sesame", "10.0.0.1")
    with ThreadPoolExecutor(10) as pool:
        with checker._bcrypt_lock:  # as long as hashing takes
            tried = [pool.submit(checker.check, users, "a", f"wrong{n}", "10.0.0.1") for n in range(6)]
            answered = as_completed(tried, 10)
            assert all(isinstance(next(answered).exception(), Busy) for _ in range(4))
            assert checker.check(users, "a", "open sesame", "10.0.0.1")  # remembered: needs no place
            other = [pool.submit(checker.check, users, "b", "open sesame", "10.0.0.2") for _ in range(3)]
        assert [answer.result(10) for answer in other] == [True] * 3  # checked once for all three
    assert sum(isinstance(answer.exception(), Busy) for answer in tried) == 4
    assert checker.computed == 4
    assert checker._waiting == {}
    assert checker._checking == {}


def test_password_checks_do_not_pile_up() -> None:
    checker = PasswordChecker(max_wait=0.01)
    with checker._bcrypt_lock, pytest.raises(Busy):
        checker.check({"a": HASH}, "a", "x")
