"""Alerts about main and GPU memory."""

from __future__ import annotations

from typing import Final

from clio_exporter.kit.rules.model import Alert, Group

GROUPS: Final = (
    Group(
        name="clio-memory-pressure",
        rules=(
            Alert(
                name="ClioNodeMemoryPressure",
                severity="warning",
                scope="node",
                wait="10m",
                dashboard="clio-node",
                expr="node:clio_node_memory_used:ratio > [[memory_pressure]]",
                summary="[[where]] is short of memory",
                description="Main memory is {{ $value | humanizePercentage }} in use.",
                when="over [[memory_pressure|words]] in use",
            ),
            Alert(
                name="ClioNodeMemoryExhausted",
                severity="critical",
                scope="node",
                wait="2m",
                dashboard="clio-node",
                expr="node:clio_node_memory_used:ratio > [[memory_exhausted]]",
                summary="[[where]] is out of memory",
                description=(
                    "Main memory is {{ $value | humanizePercentage }} in use; the kernel may kill"
                    " the runtime."
                ),
                when="over [[memory_exhausted|words]] in use",
            ),
            Alert(
                name="ClioNodeGpuMemoryPressure",
                severity="warning",
                scope="node",
                wait="10m",
                dashboard="clio-node",
                expr="node:clio_node_hbm_used:ratio > [[gpu_memory]]",
                summary="[[where]] is short of GPU memory",
                description="GPU memory is {{ $value | humanizePercentage }} in use.",
                when="over [[gpu_memory|words]] in use",
            ),
        ),
    ),
)
