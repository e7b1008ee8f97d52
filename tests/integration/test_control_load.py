"""200 readers at once while a node hangs: everyone is answered, and nothing grows."""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import yaml

from clio_lab.demo.cluster import LocalCluster

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(300)]

READERS = 200
SECONDS = 30.0
PAUSE = 0.2
PATHS = (
    "/api/topology", "/api/system", "/api/workers", "/api/topology?search=0-2", "/api/node/1/workers",
    "/api/node/0/bdev_stats", "/api/node/2/workers", "/api/v1/series?match[]=clio_node_search",
)  # fmt: skip


async def get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> int:
    """Status of one GET on a kept connection; HTTP libraries would cost more than the server does."""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    assert length is not None, head
    await reader.readexactly(int(length[1]))
    return int(head.split()[1])


async def read(
    port: int, until: float, number: int, statuses: Counter[str], times: dict[str, list[float]]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    turn = number
    while time.monotonic() < until:
        path = PATHS[turn % len(PATHS)]
        turn += 1
        started = time.monotonic()
        try:
            status = await asyncio.wait_for(get(reader, writer, path), 30)
            statuses[f"{status}{' hung' if '/node/2/' in path else ''}"] += 1
        except (OSError, EOFError, asyncio.TimeoutError) as error:
            statuses[type(error).__name__] += 1
            break
        times[path].append(time.monotonic() - started)
        await asyncio.sleep(PAUSE)
    writer.close()


async def crowd(port: int, readers: int, seconds: float) -> tuple[Counter[str], dict[str, list[float]]]:
    statuses: Counter[str] = Counter()
    times: dict[str, list[float]] = {path: [] for path in PATHS}
    until = time.monotonic() + seconds
    await asyncio.gather(*(read(port, until, i, statuses, times) for i in range(readers)))
    return statuses, times


def size(process: psutil.Process) -> tuple[int, int]:
    return process.num_threads(), process.num_fds()


def settled(process: psutil.Process, limit: tuple[int, int], seconds: float) -> tuple[int, int]:
    """Size once it is within the limit, or after that time."""
    deadline = time.monotonic() + seconds
    while True:
        found = size(process)
        if (found[0] <= limit[0] and found[1] <= limit[1]) or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def test_200_readers_while_a_node_hangs(cluster4: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "exporter.yaml").write_text(
        yaml.safe_dump({"clusters": [{"hostfile": str(cluster4.hostfile)}]})
    )
    (tmp_path / "control.yaml").write_text(
        yaml.safe_dump({"exporter_config": "exporter.yaml", "limits": {"reads_per_second": 1_000_000}})
    )
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CLIO_CONTROL_API_REPLY_PORT": "0"}
    command = [sys.executable, "-m", "clio_control_api", "--port", "0", "--config", "control.yaml"]
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "listening" in line)
        found_port = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert found_port is not None
        port = int(found_port[1])
        watched = psutil.Process(process.pid)
        asyncio.run(crowd(port, 20, 2.0))
        before = settled(watched, (10**6, 60), 3)
        cluster4.nodes[2].pause()
        cpu = sum(watched.cpu_times()[:2])
        statuses, times = asyncio.run(crowd(port, READERS, SECONDS))
        cpu = sum(watched.cpu_times()[:2]) - cpu
        after = settled(watched, (before[0] + 2, before[1] + 8), 20)
    finally:
        if cluster4.nodes[2].is_paused:
            cluster4.nodes[2].resume()
        process.terminate()
        process.communicate(timeout=30)
    every = sorted(seconds for found in times.values() for seconds in found)
    print(f"{len(every)} reads, {dict(statuses)}, p50 {statistics.median(every) * 1000:.0f} ms, "
          f"p99 {every[int(len(every) * 0.99)] * 1000:.0f} ms, max {every[-1]:.2f} s, cpu {cpu:.1f} s, "
          f"threads and descriptors {before} -> {after}")  # fmt: skip
    for path, found in times.items():
        print(f"  {path}: p50 {statistics.median(found) * 1000:.0f} ms, max {max(found) * 1000:.0f} ms")
    # Each is answered; where a host has nothing to spare, healthy nodes are late too now and then (503).
    assert set(statuses) <= {"200", "503", "503 hung", "200 hung"}, statuses
    assert statuses["200"] > max(READERS, 4 * statuses["503"])
    assert statuses["503 hung"] > 0
    assert after[0] <= before[0] + 2
    assert after[1] <= before[1] + 8
    assert process.returncode == 0
