"""Why somebody acts: taken with every action, written down, and never more than one line."""

from __future__ import annotations

import pytest

from clio_control_api.errors import BadRequest
from clio_control_api.reasons import MAX_REASON, checked_reason
from tests.unit.control_api.support import TOKENS, Api


def test_a_reason_is_one_line_of_text() -> None:
    assert checked_reason(None) == ""
    assert checked_reason("  new kernel, ticket <7> ") == "new kernel, ticket <7>"
    assert checked_reason("größer") == "größer"
    for bad in ("a\nb", "a\x1b[31mb", "x" * (MAX_REASON + 1), 5, ["a"]):
        with pytest.raises(BadRequest):
            checked_reason(bad)


def test_who_why_and_from_where_are_written_down(guarded: Api) -> None:
    """SSH fails here (nobody listens), which is an outcome like another."""
    token = TOKENS["anna"][1]
    path = "/api/topology/node/3/shutdown"
    assert guarded.post(path, token, query_string={"reason": "a\nb"}).status_code == 400
    assert guarded.post(path, token, query_string={"reason": "disk swap"}).status_code in (502, 504)
    lines = [line for line in guarded.audit() if line["event"] in ("begin", "end")]
    assert [line["event"] for line in lines] == ["begin", "end"]
    for line in lines:
        assert (line["actor"], line["reason"], line["client"]) == ("anna", "disk swap", "127.0.0.1")
