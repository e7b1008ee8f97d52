"""The OpenAPI description is true: schemathesis makes requests from it and checks the answers."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from clio_control_api.openapi import document
from clio_lab.simulator.process import SimulatorProcess
from tests.ports import closed_port
from tests.unit.control_api.support import TOKENS, Api, control_api

if sys.version_info < (3, 11):
    pytest.skip("schemathesis needs Python 3.11", allow_module_level=True)

import schemathesis
from schemathesis.checks import not_a_server_error, positive_data_acceptance

EXAMPLES = 12


@pytest.fixture(scope="module")
def described(
    tmp_path_factory: pytest.TempPathFactory, _simulated: tuple[SimulatorProcess, str]
) -> Iterator[Api]:
    """Node 4 is down; SSH is refused, so that an action fails at once."""
    process, hosts = _simulated
    process.set_fault(4, "refused")
    limits = {"actions_per_minute": 1_000_000, "failed_logins_per_minute": 1_000_000}
    home: Path = tmp_path_factory.mktemp("described")
    with (
        closed_port() as port,
        control_api(home, hosts, tokens=True, ssh={"port": port}, limits=limits) as built,
    ):
        yield built
    process.clear()


@pytest.fixture
def api_schema(described: Api) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_wsgi("/api/openapi.json", described.built.app)


OPERATIONS = [(method.upper(), path) for path, item in document()["paths"].items() for method in item]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_answers_are_as_described(
    described: Api, api_schema: schemathesis.BaseSchema, method: str, path: str
) -> None:
    asked = 0
    excluded = [not_a_server_error]  # node 4 is down and SSH is refused here: a 503 and a 502, as described
    if any(word in str(document()["paths"][path]) for word in ("search", "RollingOrders")):
        excluded.append(positive_data_acceptance)  # searches and selectors are languages; no schema says them

    @given(case=api_schema[path][method].as_strategy())
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    def ask(case: schemathesis.Case) -> None:
        nonlocal asked
        if "node_id" in (case.path_parameters or {}):
            # Most generated ids are of no node; let half of the requests reach one, up or down.
            number = int(case.path_parameters["node_id"])
            if number % 2 == 0:
                case.path_parameters["node_id"] = str(number // 2 % 5)
        if asked % 2 and case.query and "hostname" in case.query:
            del case.query["hostname"]  # which means no node here, and ends at a 409
        known = described.built.services.operations.all()
        if known and "operation_id" in (case.path_parameters or {}) and asked % 2:
            case.path_parameters["operation_id"] = known[0].id
        answer = case.call_and_validate(
            headers={"Authorization": f"Bearer {TOKENS['anna'][1]}"}, excluded_checks=excluded
        )
        assert answer.status_code in (200, 202, 400, 404, 409, 502, 503), answer.text
        asked += 1

    ask()
    assert asked >= 1


def test_what_is_not_described_is_refused_as_described(api_schema: schemathesis.BaseSchema) -> None:
    """The same without a token, and with values that the description forbids."""
    for method, path in OPERATIONS:
        operation = api_schema[path][method]

        @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
        @settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
        def ask(case: schemathesis.Case) -> None:
            answer = case.call(headers={"Authorization": f"Bearer {TOKENS['vera'][1]}"})
            assert answer.status_code < 500 or answer.status_code == 503, answer.text
            if answer.status_code >= 400:
                assert answer.json()["error"]

        with contextlib.suppress(Unsatisfiable):
            ask()


def test_every_route_of_the_table_is_described(described: Api) -> None:
    routes = {
        (str(rule).replace("<", "{").replace(">", "}"), method.lower())
        for rule in described.built.app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    paths = {(path, method) for path, item in document()["paths"].items() for method in item}
    assert paths <= routes
    left = {path for path, _ in routes - paths}
    known = (
        "/nodes/",
        "/operations",
        "/operation.js",
        "/login",
        "/logout",
        "/pages.css",
        "/metrics",
        "/api/v1/",
        "/api/openapi.json",
    )
    assert [path for path in left - {"/"} if not path.startswith(known)] == []


def test_the_description_itself_is_valid() -> None:
    schema = schemathesis.openapi.from_dict(document())
    schema.validate()
    operations = [operation.ok() for operation in schema.get_all_operations()]
    assert len(operations) == len([m for item in document()["paths"].values() for m in item])
    with contextlib.suppress(AttributeError):
        assert schema.specification.version.startswith("3.1")
