"""The core modules, and the unit tests that are there for each."""

from __future__ import annotations

from typing import Final

_CLIENT: Final = "client/clio_client"
_EXPORTER: Final = "exporter/clio_exporter"
_CONTROL: Final = "control_api/clio_control_api"
_TESTS: Final = "tests/unit"

MODULES: Final[dict[str, tuple[str, ...]]] = {
    f"{_CLIENT}/search.py": (f"{_TESTS}/client/test_search.py",),
    f"{_CLIENT}/single_flight.py": (f"{_TESTS}/client/test_single_flight.py",),
    f"{_CLIENT}/discovery.py": (
        f"{_TESTS}/client/test_discovery.py",
        f"{_TESTS}/client/test_membership.py",
    ),
    f"{_CLIENT}/membership.py": (f"{_TESTS}/client/test_membership.py",),
    f"{_CLIENT}/config/hostfile.py": (f"{_TESTS}/client/config/test_hostfile.py",),
    f"{_CLIENT}/protocol/codec.py": (f"{_TESTS}/client/test_codec.py",),
    f"{_CLIENT}/protocol/records.py": (f"{_TESTS}/client/test_records.py",),
    f"{_CLIENT}/transport/requests.py": (f"{_TESTS}/client/test_requests.py",),
    f"{_EXPORTER}/engine.py": (f"{_TESTS}/exporter/test_engine.py",),
    f"{_EXPORTER}/exposition.py": (f"{_TESTS}/exporter/test_exposition.py",),
    f"{_EXPORTER}/labels.py": (f"{_TESTS}/exporter/test_labels.py",),
    f"{_EXPORTER}/peaks.py": (f"{_TESTS}/exporter/test_peaks.py",),
    f"{_EXPORTER}/poller.py": (f"{_TESTS}/exporter/test_poller.py",),
    f"{_EXPORTER}/slots.py": (f"{_TESTS}/exporter/test_slots.py",),
    f"{_EXPORTER}/write_time.py": (f"{_TESTS}/exporter/test_write_time.py",),
    f"{_CONTROL}/action_store.py": (f"{_TESTS}/control_api/test_actions.py",),
    f"{_CONTROL}/actions.py": (f"{_TESTS}/control_api/test_actions.py",),
    f"{_CONTROL}/origins.py": (f"{_TESTS}/control_api/test_origins.py",),
    f"{_CONTROL}/performer.py": (f"{_TESTS}/control_api/test_performer.py",),
    f"{_CONTROL}/ratelimit.py": (f"{_TESTS}/control_api/test_tokens.py",),
    f"{_CLIENT}/transport/connection.py": (
        f"{_TESTS}/client/test_settling.py",
        f"{_TESTS}/client/test_zeromq.py",
        f"{_TESTS}/client/test_duplicates.py",
    ),
}
"""Path of a module to the tests that are run against its mutants."""
