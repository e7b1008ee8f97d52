"""The search box's language."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clio_client.search import MAX_LENGTH, MAX_PARTS, SearchError, parse_search

IDS = st.integers(0, 10**9 - 1)
SMALL = st.integers(0, 400)
RANGES = st.lists(
    st.tuples(SMALL, SMALL).map(lambda pair: tuple(sorted(pair))), min_size=1, max_size=MAX_PARTS
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("3", {3}),
        ("1-3", {1, 2, 3}),
        ("1,3,5", {1, 3, 5}),
        ("1-2,5", {1, 2, 5}),
        (" 1 - 3 , 6 ", {1, 2, 3, 6}),
        ("03", {3}),
        ("", set(range(8))),
        ("   ", set(range(8))),
        ("NODE-a", {0, 1, 2, 3}),
        ("10.0.0.5", {5}),
        ("nowhere", set()),
        ("400", set()),
    ],
)
def test_means(text: str, found: set[int]) -> None:
    search = parse_search(text)
    names = [("node-a" if i < 4 else "node-b", f"10.0.0.{i}") for i in range(8)]
    assert {i for i in range(8) if search.matches(i, names[i])} == found


@pytest.mark.parametrize(
    "text",
    ["1,,3", ",", "1-", "-1", "5-1", "1-2-3", "1;2", "$(id)", "a b", "'", '"', "1\n2", "é", "٣", "1 2", "/",
     "x" * (MAX_LENGTH + 1), ",".join("1" * (MAX_PARTS + 1)), "1234567890", "é" * MAX_LENGTH,
     "1-2-3" + " " * 60 + "-4"],
)  # fmt: skip
def test_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(SearchError, match=r"1-20.*1,3,5.*hostname"):
        parse_search(text)


def test_what_is_refused_is_shown_but_not_at_length() -> None:
    with pytest.raises(SearchError, match="'1-2-3' is neither"):
        parse_search("1-2-3")
    with pytest.raises(SearchError, match=r"'x!{39}' has") as caught:
        parse_search("x" + "!" * 39)
    assert "..." not in str(caught.value)
    with pytest.raises(SearchError, match=r"'x!{38}\.\.\.' has"):
        parse_search("x" + "!" * 200)


def test_as_long_as_it_may_be() -> None:
    assert len(parse_search(",".join("1" * MAX_PARTS)).ranges) == MAX_PARTS
    assert parse_search("n" * MAX_LENGTH).keyword == "n" * MAX_LENGTH


@given(RANGES)
def test_ids_select_exactly_the_union_of_their_ranges(ranges: list[tuple[int, int]]) -> None:
    text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
    if len(text) > MAX_LENGTH:
        return
    search = parse_search(text)
    wanted = {i for a, b in ranges for i in range(a, b + 1)}
    assert {i for i in range(402) if search.matches(i, ("1", "2-3"))} == wanted


@given(IDS, st.text(max_size=5), st.text(max_size=5))
def test_a_single_id_ignores_names(node_id: int, before: str, after: str) -> None:
    search = parse_search(str(node_id))
    assert search.matches(node_id, ())
    assert not search.matches(node_id + 1, (f"{before}{node_id}{after}",))


@given(st.from_regex(r"[A-Za-z0-9._-]{0,20}[A-Za-z._][A-Za-z0-9._-]{0,20}", fullmatch=True), IDS)
def test_a_keyword_is_found_in_any_case_anywhere(text: str, node_id: int) -> None:
    search = parse_search(text)
    assert search.matches(node_id, ("x" + text.upper() + "y",))
    assert search.matches(node_id, (None, text.swapcase()))
    assert not search.matches(node_id, ("", None))


@given(st.text(max_size=400))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        search = parse_search(text)
    except SearchError as error:
        message = str(error)
    else:
        message = "-"
        assert search.ranges == () or search.keyword == ""
        assert isinstance(search.matches(0, ("a",)), bool)
    assert message.isprintable()


@given(st.text(max_size=40))
def test_blanks_around_do_not_matter(text: str) -> None:
    def outcome(value: str) -> object:
        try:
            return parse_search(value)
        except SearchError:
            return None

    assert outcome(text) == outcome(f" {text}\t")
