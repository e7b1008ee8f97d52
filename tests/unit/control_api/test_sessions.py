"""Log-ins, and the secrets of forms."""

from __future__ import annotations

from clio_control_api.forms import Nonces
from clio_control_api.sessions import PER_TOKEN, Sessions

HERE = "127.0.0.1"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def sessions(limit: int = 100) -> tuple[Sessions, Clock]:
    clock = Clock()
    return Sessions(10.0, 25.0, limit, clock), clock


def test_a_log_in_is_found_by_its_cookie_from_its_address() -> None:
    found, _ = sessions()
    secret = found.begin("token", HERE)
    session = found.find(secret, HERE)
    assert session is not None
    assert (session.token, session.address) == ("token", HERE)
    assert secret not in (session.key, session.token)
    assert found.find(secret, "10.0.0.9") is None
    assert found.find(session.key, HERE) is None
    assert found.find("", HERE) is None
    found.end(session)
    assert found.find(secret, HERE) is None
    found.end(session)  # twice does no harm


def test_a_log_in_ends_when_it_is_not_used() -> None:
    found, clock = sessions()
    secret = found.begin("token", HERE)
    clock.now = 9.5
    assert found.find(secret, HERE) is not None
    clock.now = 19.5
    assert found.find(secret, HERE) is None
    assert len(found) == 0


def test_what_comes_from_elsewhere_does_not_keep_a_log_in_alive() -> None:
    found, clock = sessions()
    secret = found.begin("token", HERE)
    clock.now = 9.0
    assert found.find(secret, "10.0.0.9") is None
    clock.now = 10.0
    assert found.find(secret, HERE) is None


def test_a_log_in_ends_however_much_it_is_used() -> None:
    found, clock = sessions()
    secret = found.begin("token", HERE)
    for now in (8.0, 16.0, 24.9):
        clock.now = now
        assert found.find(secret, HERE) is not None
    clock.now = 25.0
    assert found.find(secret, HERE) is None


def test_log_ins_are_bounded_in_number_and_the_one_unused_longest_goes() -> None:
    found, _ = sessions(limit=3)
    secrets = [found.begin(f"token {i}", HERE) for i in range(3)]
    assert found.find(secrets[0], HERE) is not None
    secrets.append(found.begin("token 3", HERE))
    assert [found.find(secret, HERE) is not None for secret in secrets] == [True, False, True, True]
    assert len(found) == 3


def test_one_token_does_not_push_out_the_log_ins_of_others() -> None:
    found, _ = sessions()
    other = found.begin("other", HERE)
    own = [found.begin("token", HERE) for _ in range(2 * PER_TOKEN)]
    assert found.find(other, HERE) is not None
    kept = [found.find(secret, HERE) is not None for secret in own]
    assert kept == [False] * PER_TOKEN + [True] * PER_TOKEN


def test_a_nonce_is_for_one_use_owner_and_purpose() -> None:
    nonces = Nonces(Clock())
    nonce = nonces.issue("anna", "restart 3")
    assert not nonces.take(nonce, "vera", "restart 3")
    assert not nonces.take(nonce, "anna", "restart 4")
    assert not nonces.take("", "anna", "restart 3")
    assert nonces.take(nonce, "anna", "restart 3")
    assert not nonces.take(nonce, "anna", "restart 3")


def test_nonces_are_bounded_in_age_and_number() -> None:
    clock = Clock()
    nonces = Nonces(clock, limit=100)
    old = nonces.issue("anna", "x")
    clock.now = 3600.0
    assert not nonces.take(old, "anna", "x")
    annas = [nonces.issue("anna", "x") for _ in range(70)]
    assert [nonces.take(nonce, "anna", "x") for nonce in annas] == [False] * 6 + [True] * 64
    first = nonces.issue("anna", "x")
    for number in range(100):
        nonces.issue(f"owner {number}", "x")
    assert not nonces.take(first, "anna", "x")
