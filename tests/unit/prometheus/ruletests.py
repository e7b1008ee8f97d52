"""Promtool's tests of rules, each with the rules it is about and no others.

A test file has `evaluation_interval` and `tests`, in promtool's format. Promtool evaluates every rule it is
given at every step of every test, which took a minute for all; a test looks at few of them.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.prometheus import promtool
from tests.unit.prometheus.rulefiles import RULE_FILES, Rule, linted, load, rules

_SERIES = re.compile(r"[a-z_]+:clio_\w+:\w+")


def run(path: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    """Promtool on all tests of a file, rewritten into `directory`."""
    head, *texts = re.split(r"^(?=  - name: )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert "\ntests:" in head, path
    written = []
    for number, text in enumerate(texts):
        groups = needed(yaml.safe_load(text)[0])
        rule_file = directory / f"{path.stem}-{number}-rules.yml"
        rule_file.write_text(yaml.safe_dump({"groups": groups}, sort_keys=False))
        order = [group["name"] for group in groups]
        # The text as it is: PyYAML takes 0x40, forty zeros, for a number.
        part = directory / f"{path.stem}-{number}.yml"
        part.write_text(f"rule_files: [{rule_file.name}]\ngroup_eval_order: {order}\n{head}{text}")
        written.append(str(part))
    return promtool("test", "rules", *written)


def needed(test: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Groups of the rules that a test looks at and of those that these need, in the order of evaluation."""
    checked = [check["expr"] for check in test.get("promql_expr_test", ())]
    names = {check["alertname"] for check in test.get("alert_rule_test", ())}
    names |= {name for expression in checked for name in _SERIES.findall(expression)}
    found: set[str] = set()
    while names - found:
        name = (names - found).pop()
        found.add(name)
        for rule in rules():
            if rule.name == name:
                names |= _of(rule)
    return [
        {**group, "rules": chosen}
        for group in _groups()
        if (chosen := [rule for rule in group["rules"] if (rule.get("alert") or rule["record"]) in found])
    ]


@cache
def _groups() -> tuple[Mapping[str, Any], ...]:
    return tuple(group for path in RULE_FILES for group in load(path)["groups"])


def _of(rule: Rule) -> set[str]:
    """Recorded series that a rule selects, in its expression or in the templates of its texts."""
    texts = " ".join((rule.expr, *rule.annotations.values()))
    return set(_SERIES.findall(texts)) | {name for name in linted(rule).metrics if ":" in name}
