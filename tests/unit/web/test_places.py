from __future__ import annotations

import pytest

from clio_web.places import Places, Turns, client_of


def test_the_longest_waiting_of_the_address_that_has_most_goes() -> None:
    places: Places[str] = Places(total=4, per_address=3)
    for item, address in (("a1", "a"), ("b1", "b"), ("b2", "b"), ("c1", "c")):
        assert places.enter(item, address) == (True, None)
        places.waits(item)
    assert places.enter("d1", "d") == (True, "b1")
    places.leave("a1")
    assert places.enter("b3", "b") == (True, None)
    places.waits("b3")
    places.served("b2")
    assert places.enter("d2", "d") == (True, "b3"), "b2 is being served"


def test_an_address_has_at_most_its_share() -> None:
    places: Places[int] = Places(total=100, per_address=2)
    assert places.enter(1, "a") == (True, None)
    assert places.enter(2, "a") == (True, None)
    assert places.enter(3, "a") == (False, None), "both are being served"
    places.waits(2)
    assert places.enter(3, "a") == (True, 2)
    assert places.enter(4, "b") == (True, None)
    for item in (1, 2, 3, 3, 4):
        places.leave(item)
    places.waits(1)  # closed meanwhile
    for item in range(5, 7):
        assert places.enter(item, "a") == (True, None)


def test_turns() -> None:
    turns: Turns[int] = Turns(2)
    assert [turns.enter(item, "a") for item in range(4)] == [True, True, False, False]
    assert turns.enter(9, "b")
    assert turns.queued() == [2, 3]
    assert turns.leave(0) == 2
    assert turns.leave(0) is None
    assert turns.leave(2) == 3
    assert turns.leave(1) is None
    assert turns.leave(3) is None
    assert turns.queued() == []


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_whom_an_address_counts_for(address: str, client: str) -> None:
    assert client_of(address) == client
