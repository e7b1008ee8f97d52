"""Tokens, the rate limiter, and the command that makes tokens."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clio_client.config.errors import ConfigError
from clio_control_api.cli import main
from clio_control_api.operator_token import ensure_tokens
from clio_control_api.principals import Identity, Role, Scope
from clio_control_api.ratelimit import RateLimiter
from clio_control_api.tokens import (
    Token,
    TokenRefusedError,
    TokenStore,
    digest_of,
    line_of,
    new_token,
    parse_tokens,
)


def test_made_tokens_are_long_and_different() -> None:
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(len(token) == 48 for token in made)


def store_of(path: Path, *lines: str, now: float = 0.0) -> TokenStore:
    path.write_text("".join(line + "\n" for line in lines))
    path.chmod(0o600)
    return TokenStore(path, clock=lambda: now)


def reason(store: TokenStore, presented: str) -> str:
    with pytest.raises(TokenRefusedError) as caught:
        store.find(presented)
    return caught.value.reason


def test_a_store_finds_its_tokens_only(tmp_path: Path) -> None:
    mine, other = new_token(), new_token()
    path = tmp_path / "tokens"
    store = store_of(path, line_of("a@b", Role.OPERATOR, mine))
    assert store.find(mine).identity == Identity("a@b", Role.OPERATOR)
    assert mine not in path.read_text()
    for wrong in (other, "", mine[:-1], mine + "x", mine.upper(), digest_of(mine), "é"):
        assert reason(store, wrong) == "unknown"


@pytest.mark.parametrize(
    ("words", "scope", "expires"),
    [
        ("", Scope(), None),
        ("expires=1970-01-02", Scope(), 86400.0),
        ("expires=1970-01-01T00:01:40Z", Scope(), 100.0),
        ("expires=1970-01-01T01:01:40+01:00 clusters=a,b", Scope(("a", "b")), 100.0),
        ("nodes=1-3,GPU-*\tclusters=lab", Scope(("lab",), ("1-3", "gpu-*")), None),
    ],
)
def test_words_of_a_line(words: str, scope: Scope, expires: float | None) -> None:
    token = new_token()
    (found,) = parse_tokens(f"a:operator:{digest_of(token)}  {words}\n", "tokens").tokens.values()
    assert (found.scope, found.expires) == (scope, expires)
    assert parse_tokens(found.line, "tokens").tokens == {found.digest: found}


@pytest.mark.parametrize(
    "line",
    [
        "x",
        "a:admin:" + "0" * 64,
        "a:viewer:" + "0" * 63,
        "a:viewer:clio_secret",
        ":viewer:" + "0" * 64,
        *(
            f"a:operator:{'0' * 64} {words}"
            for words in (
                "expires=", "expires=soon", "expires=2027-01-01T00:00:00", "expires=2027-13-01", "nodes=",
                "nodes=3-1", "clusters=a/b", "colour=secret", "secret",
                "expires=2027-01-01 expires=2028-01-01",
            )
        ),
        f"a:viewer:{'0' * 64} nodes=1",
    ],
)  # fmt: skip
def test_bad_lines_are_named_but_not_shown_and_the_others_hold(line: str) -> None:
    good = new_token()
    parsed = parse_tokens(f"# comment\n\n{line}\n{line_of('a', Role.VIEWER, good)}\n", "tokens")
    assert list(parsed.tokens) == [digest_of(good)]
    (problem,) = parsed.problems
    assert problem.line == 3
    assert "secret" not in str(problem)


@given(st.text(max_size=200))
def test_any_text_is_a_tokens_file_with_problems_at_worst(text: str) -> None:
    parsed = parse_tokens(f"{text}\n{text}", "tokens")
    assert all(problem.line for problem in parsed.problems)


def test_a_token_twice_does_not_count(tmp_path: Path) -> None:
    token, other = new_token(), new_token()
    lines = [line_of("a", Role.OPERATOR, token), line_of("b", Role.VIEWER, other)]
    store = store_of(tmp_path / "tokens", *lines, line_of("a", Role.VIEWER, token))
    assert reason(store, token) == "unknown"
    assert store.find(other).name == "b"
    assert store.counts() == (1, 0, 1, True)


def test_a_token_holds_until_it_expires(tmp_path: Path) -> None:
    token = new_token()
    line = Token("a", Role.VIEWER, digest_of(token), expires=100.0).line
    before, at = (store_of(tmp_path / "tokens", line, now=now) for now in (99.0, 100.0))
    assert before.find(token).name == "a"
    assert reason(at, token) == "expired"
    assert (before.counts(), at.counts()) == ((1, 0, 0, True), (0, 1, 0, True))


def test_a_token_that_is_revoked_right_after_the_file_was_read_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place and with the same length: where the file system's clock has coarse ticks, its date stays."""
    token, path = new_token(), tmp_path / "tokens"
    line = line_of("anna", Role.OPERATOR, token)
    store = store_of(path, line, line_of("otto", Role.OPERATOR, new_token()))
    as_it_is = path.stat()
    monkeypatch.setattr(Path, "stat", lambda _: as_it_is)
    assert store.find(token).name == "anna"
    path.write_text(path.read_text().replace(line, f"#{line[1:]}"))
    assert reason(store, token) == "unknown"


def test_a_file_that_others_may_write_or_is_empty_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("# none yet\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="no token"):
        TokenStore(path)
    path.write_text("# none yet\nbroken\n")
    with pytest.raises(ConfigError, match="tokens:2: not a line"):
        TokenStore(path)
    path.write_text(line_of("a", Role.VIEWER, new_token()))
    path.chmod(0o622)
    with pytest.raises(ConfigError, match="chmod"):
        TokenStore(path)


@given(st.text(max_size=60))
def test_no_other_text_is_a_token(text: str) -> None:
    assert reason(TokenStore(None), text) == "unknown"


# --- the token of the first start -----------------------------------------------------------------------


def test_a_first_start_makes_a_token_that_only_its_owner_can_read(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        assert ensure_tokens(tmp_path)
    finally:
        os.umask(mask)
    clear, hashes = tmp_path / "token", tmp_path / "tokens"
    assert {path.name for path in tmp_path.iterdir()} == {"token", "tokens"}
    assert [path.stat().st_mode & 0o777 for path in (clear, hashes)] == [0o600, 0o600]
    token = clear.read_text().strip()
    assert token not in hashes.read_text()
    assert TokenStore(hashes).find(token).identity == Identity("operator", Role.OPERATOR)
    assert not ensure_tokens(tmp_path)
    assert clear.read_text().strip() == token


def test_revoking_the_first_token_is_not_undone_by_the_next_start(tmp_path: Path) -> None:
    ensure_tokens(tmp_path)
    (tmp_path / "tokens").write_text("")
    assert not ensure_tokens(tmp_path)


def test_a_first_start_that_was_cut_short_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("clio_old")
    assert ensure_tokens(tmp_path)
    TokenStore(tmp_path / "tokens").find((tmp_path / "token").read_text().strip())


def test_starts_at_the_same_time_agree_on_one_token(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: ensure_tokens(tmp_path), range(8)))
    assert sorted(made) == [False] * 7 + [True]
    TokenStore(tmp_path / "tokens").find((tmp_path / "token").read_text().strip())


def test_a_state_directory_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="state_dir"):
        ensure_tokens(tmp_path / "missing")


# --- the command -----------------------------------------------------------------------------------------


def test_the_command_makes_a_line_that_lets_its_token_in(capsys: pytest.CaptureFixture[str]) -> None:
    scope = ["--clusters", "lab", "--nodes", "1-3,gpu-*"]
    assert main(["token", "otto", "--role", "operator", "--expires", "2d", *scope]) == 0
    out, err = capsys.readouterr()
    token = err.split(": ")[1].strip()
    assert token not in out
    found = parse_tokens(out, "stdout").tokens[digest_of(token)]
    assert found.identity == Identity("otto", Role.OPERATOR, Scope(("lab",), ("1-3", "gpu-*")))
    assert found.expires == pytest.approx(time.time() + 2 * 86400, abs=120)


@pytest.mark.parametrize(
    "arguments",
    [
        ["a:b"], ["a b"], [""], ["é"], [], ["x", "--list"], ["x", "--nodes", "1-3"], ["x", "--expires", "0h"],
        ["x", "--expires", "2001-01-01"], ["x", "--expires", "soon"],
        ["x", "--role", "operator", "--nodes", "3-1"], ["x", "--role", "operator", "--clusters", "a:b"],
        ["x", "--role", "admin"],
    ],
    ids=str,
)  # fmt: skip
def test_what_the_command_refuses(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["token", *arguments])
    assert caught.value.code == 2
    assert capsys.readouterr().out == ""


def test_the_command_adds_and_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tokens"
    made = []
    for arguments in (["anna", "--role", "operator", "--nodes", "1-3"], ["vera"]):
        assert main(["token", *arguments, "--add", "--tokens-file", str(path)]) == 0
        out, err = capsys.readouterr()
        assert out == ""
        made.append(err.split(": ")[1].strip())
    assert path.stat().st_mode & 0o777 == 0o600
    assert [TokenStore(path).find(token).name for token in made] == ["anna", "vera"]
    path.write_text(path.read_text().rstrip("\n"))  # as an editor may leave it
    assert main(["token", "nora", "--expires", "2100-01-01", "--add", "--tokens-file", str(path)]) == 0
    capsys.readouterr()
    assert main(["token", "--list", "--tokens-file", str(path)]) == 0
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows] == ["NAME", "anna", "vera", "nora"]
    assert rows[1][1:] == ["operator", digest_of(made[0])[:8], "never", "all", "1-3"]
    assert rows[3][3] == "2100-01-01T00:00:00Z"
    assert digest_of(made[0]) not in out
    with path.open("a") as stream:
        stream.write("broken\n" + Token("old", Role.VIEWER, "0" * 64, expires=0.0).line + "\n")
    assert main(["token", "--list", "--tokens-file", str(path)]) == 1
    out, err = capsys.readouterr()
    assert "(expired)" in out
    assert "tokens:5" in err


def test_the_command_uses_the_file_of_the_service(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "control.yaml").write_text("state_dir: state\n")
    assert main(["token", "vera", "--add", "--config", str(tmp_path / "control.yaml")]) == 0
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert "vera:viewer:" in (tmp_path / "state" / "tokens").read_text()
    capsys.readouterr()
    assert main(["token", "--list", "--tokens-file", str(tmp_path / "none")]) == 1
    assert "tokens file" in capsys.readouterr().err


# --- the rate limiter -------------------------------------------------------------------------------------


def test_rate_limiter() -> None:
    now = [0.0]
    limiter = RateLimiter(2.0, 4.0, clock=lambda: now[0])
    assert [limiter.take("a") for _ in range(4)] == [0, 0, 0, 0]
    assert limiter.take("a") == pytest.approx(0.5)
    assert limiter.take("b") == 0  # others are not affected
    now[0] = 0.25
    assert limiter.take("a") == pytest.approx(0.25)  # what was refused did not count
    now[0] = 0.5
    assert limiter.take("a") == 0
    assert limiter.take("a") == pytest.approx(0.5)
    now[0] = 100.0
    assert [limiter.take("a") > 0 for _ in range(5)] == [False] * 4 + [
        True
    ]  # the burst is all that is saved up


def test_the_rate_limiter_forgets_who_was_seen_longest_ago() -> None:
    limiter = RateLimiter(1.0, 1.0, max_keys=2, clock=lambda: 0.0)
    for key in "ab":
        assert limiter.take(key) == 0
    assert limiter.take("a") > 0  # seen again: b is older now
    assert limiter.take("c") == 0
    assert limiter.take("a") > 0  # still known
    assert limiter.take("b") == 0  # forgotten: memory is bounded
