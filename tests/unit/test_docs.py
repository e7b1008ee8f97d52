"""Pages of the documentation that the code has a part in."""

from __future__ import annotations

import pytest

from scripts import docs

PAGES = dict(docs.pages())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_page_is_up_to_date(path: docs.Path) -> None:
    assert path.read_text(encoding="utf-8") == PAGES[path], "run: make docs"


def test_every_table_is_somewhere() -> None:
    text = "".join(PAGES.values())
    for name, table in docs.TABLES.items():
        assert f": {name} -->\n{table}<!-- end of " in text
