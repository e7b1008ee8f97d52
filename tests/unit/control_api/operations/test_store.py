"""Operations in files: what is none is left where it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clio_control_api.operations.model import NodeProgress, Operation, Orders
from clio_control_api.operations.store import OperationStore

OPERATION = Operation(
    "0123456789abcdef", Orders("restart", "lab", "0"), (NodeProgress(0, "n0", "n0:9413", pools=("1.0",)),),
    began=1.0, updated=2.0, up_before=(0,),
)  # fmt: skip


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    store = OperationStore(tmp_path)
    store.save(OPERATION)
    assert store.load() == [OPERATION]


@pytest.mark.parametrize(
    "changes",
    [
        {"began": "x"}, {"updated": None}, {"ended": "x"}, {"revision": "1"}, {"up_before": ["a"]},
        {"up_before": 1}, {"state": "x"}, {"state": []}, {"id": "fedcba9876543210"}, {"orders": {}},
        {"orders": {"action": 1, "cluster": "", "nodes": ""}}, {"nodes": [{"node_id": 0}]}, {"nodes": 1},
        {"began": 10**400},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_operation_is_left(tmp_path: Path, changes: dict[str, Any]) -> None:
    store = OperationStore(tmp_path)
    store.save(OPERATION)
    path = tmp_path / f"{OPERATION.id}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    assert store.load() == []
    assert path.exists()
