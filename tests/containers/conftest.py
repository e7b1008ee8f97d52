"""Images and a cluster of containers, shared by the container tests; skips say what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers import engine

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these are marked, and have time for images that are made for the first time."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.containers)
            if "images" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[None]:
    """A Docker engine without what earlier, killed runs have left."""
    try:
        client = engine.engine()
    except engine.CannotBuildError as error:
        pytest.skip(str(error))
    engine.remove_leftovers()
    yield
    engine.discard_project()
    client.close()
    engine.engine.cache_clear()


@pytest.fixture(scope="session")
def images(docker_engine: None) -> dict[str, str]:
    """The images built from this checkout, by target."""
    try:
        return engine.images()
    except engine.CannotBuildError as error:
        pytest.skip(str(error))
