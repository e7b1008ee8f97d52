"""Tokens, the rate limiter, and the command that makes tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clio_client.config.errors import ConfigError
from clio_control_api.cli import main
from clio_control_api.ratelimit import RateLimiter
from clio_control_api.tokens import Role, TokenStore, digest_of, line_of, new_token, parse_tokens


def test_made_tokens_are_long_and_different() -> None:
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(len(token) == 48 for token in made)


def test_a_store_finds_its_tokens_only(tmp_path: Path) -> None:
    mine, other = new_token(), new_token()
    path = tmp_path / "tokens"
    path.write_text(line_of("a@b", Role.OPERATOR, mine) + "\n")
    path.chmod(0o600)
    store = TokenStore(path)
    found = store.find(mine)
    assert found is not None
    assert (found.name, found.role) == ("a@b", Role.OPERATOR)
    assert mine not in path.read_text()
    for wrong in (other, "", mine[:-1], mine + "x", mine.upper(), digest_of(mine), "é"):
        assert store.find(wrong) is None


@pytest.mark.parametrize(
    "line",
    ["x", "a:admin:" + "0" * 64, "a:viewer:" + "0" * 63, "a:viewer:clio_secret", ":viewer:" + "0" * 64],
)
def test_bad_lines_are_named_but_not_shown(line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_tokens(f"# comment\n\n{line}\n", "tokens")
    assert caught.value.line == 3
    assert "secret" not in str(caught.value)


def test_a_token_twice_is_refused() -> None:
    line = line_of("a", Role.VIEWER, new_token())
    with pytest.raises(ConfigError, match="twice"):
        parse_tokens(f"{line}\n{line}\n", "tokens")


def test_a_file_that_others_may_write_or_is_empty_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("# none yet\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="no token"):
        TokenStore(path)
    path.write_text(line_of("a", Role.VIEWER, new_token()))
    path.chmod(0o622)
    with pytest.raises(ConfigError, match="chmod"):
        TokenStore(path)


@given(st.text(max_size=60))
def test_no_other_text_is_a_token(text: str) -> None:
    assert TokenStore(None).find(text) is None


def test_the_command_makes_a_line_that_lets_its_token_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "otto", "--role", "operator"]) == 0
    out, err = capsys.readouterr()
    token = err.split(": ")[1].strip()
    assert token not in out
    found = parse_tokens(out, "stdout")[digest_of(token)]
    assert (found.name, found.role) == ("otto", Role.OPERATOR)


def test_the_command_refuses_names_that_would_break_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a:b", "a b", "", "é"):
        with pytest.raises(SystemExit):
            main(["token", name])
        assert capsys.readouterr().out == ""


def test_rate_limiter() -> None:
    now = [0.0]
    limiter = RateLimiter(2.0, 4.0, max_keys=3, clock=lambda: now[0])
    assert [limiter.take("a") for _ in range(4)] == [0, 0, 0, 0]
    assert limiter.take("a") == pytest.approx(0.5)
    assert limiter.take("b") == 0  # others are not affected
    now[0] = 0.5
    assert limiter.check("a") == 0
    assert limiter.take("a") == 0
    assert limiter.take("a") > 0
    now[0] = 100.0
    assert [limiter.take("a") for _ in range(5)][:4] == [0, 0, 0, 0]  # no more than the burst saved up
    for key in "cdef":
        limiter.take(key)
    assert limiter.take("a") == 0  # forgotten: memory is bounded
