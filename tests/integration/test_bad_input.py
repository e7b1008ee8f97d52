"""Wrong files, wrong flags, wrong nodes: a clear error, and the exporter keeps serving the rest."""

from __future__ import annotations

import contextlib
import http.server
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml
import zmq

from clio_lab.simulator.process import SimulatorProcess
from tests.exporter_process import ExporterProcess, Scrape, eventually, free_port, run_exporter
from tests.ports import closed_port
from tests.unit.web.support import write

pytestmark = pytest.mark.integration

CLIENT_PORT = 3
WORKERS = 2


@dataclass
class Simulated:
    """Three healthy simulated nodes."""

    process: SimulatorProcess
    targets: list[str]


@pytest.fixture(scope="module")
def _simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    hostfile = tmp_path_factory.mktemp("simulator") / "hosts"
    options = ["--nodes", "3", "--workers", str(WORKERS), "--bdevs", "1", "--age", "100"]
    with SimulatorProcess(*options, "--base-port", str(free_port()), "--hostfile", str(hostfile)) as process:
        yield Simulated(process, hostfile.read_text().split())


@pytest.fixture
def simulated(_simulator: Simulated) -> Iterator[Simulated]:
    """What a test did to the nodes is taken back, and none of them was hurt."""
    _simulator.process.reset_stats()
    yield _simulator
    _simulator.process.clear()
    assert _simulator.process.stats()["violations"] == {}


def is_complete(scrape: Scrape, node_id: int) -> bool:
    """Whether all that a simulated node reports is there."""
    node = str(node_id)
    return (
        scrape.value("clio_node_up", node_id=node) == 1
        and len(scrape.series("clio_worker_running", node_id=node)) == WORKERS
        and bool(scrape.series("clio_bdev_capacity_bytes", node_id=node))
        and bool(scrape.series("clio_node_cpu_utilization_ratio", node_id=node))
        and bool(scrape.series("clio_pool_info", node_id=node))
    )


def reasons(scrape: Scrape) -> dict[str, str]:
    """Reason by node id, of the nodes that are down."""
    return {labels["node_id"]: labels["reason"] for labels, _ in scrape.series("clio_node_down_info")}


# --- files and flags ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Arguments, the files they need, and what the error says."""

    arguments: tuple[str, ...]
    says: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)
    code: int = 1


BROKEN_YAML = "runtime:\n  timeout: 3s\nclusters: [\n"
CASES = {
    "unknown flag": Case(("--no-such-flag",), ("--no-such-flag", "usage:"), code=2),
    "abbreviated flag": Case(("--hostfil=x",), ("--hostfil",), code=2),
    "unknown level": Case(("--log.level=loud",), ("--log.level", "loud"), code=2),
    "not a duration": Case(("--runtime.timeout=soon",), ("--runtime.timeout", "soon")),
    "timeout out of range": Case(("--runtime.timeout=20m",), ("--runtime.timeout",)),
    "port out of range": Case(("--runtime.reply-port=70000",), ("--runtime.reply-port", "70000")),
    "missing settings": Case(("--config.file=none.yml",), ("none.yml", "does not exist")),
    "broken settings": Case(("--config.file=s.yml",), ("s.yml:3:",), {"s.yml": BROKEN_YAML}),
    "unknown key": Case(
        ("--config.file=s.yml",), ("s.yml:2:", "timeuot"), {"s.yml": "runtime:\n  timeuot: 3s\n"}
    ),
    "wrong type": Case(
        ("--config.file=s.yml",),
        ("s.yml:3:", "port"),
        {"s.yml": "clusters:\n  - nodes: [n1]\n    port: many\n"},
    ),
    "settings are a directory": Case(("--config.file=.",), ("directory",)),
    "missing hostfile": Case(("--hostfile=none",), ("none", "does not exist")),
    "hostfile is a directory": Case(("--hostfile=.",), ("directory",)),
    "empty hostfile": Case(("--hostfile=hosts",), ("hosts", "no node"), {"hosts": "# nobody\n\n"}),
    "bad hostfile line": Case(("--hostfile=hosts",), ("hosts:2:", "bad:port"), {"hosts": "n1\nbad:port\n"}),
    "node twice": Case(("--hostfile=hosts",), ("hosts:3:", "line 1"), {"hosts": "n1:9413\nn2\nn1:9413\n"}),
    "node twice by default port": Case(
        ("--hostfile=hosts",), ("hosts:2:", "line 1"), {"hosts": "n1\nn1:9413\n"}
    ),
    "nodes and hostfile": Case(("--hostfile=hosts", "--nodes=n1"), ("--nodes",), {"hosts": "n1\n"}),
    "node twice by flag": Case(("--nodes=n1,n1",), ("--nodes", "n1")),
    "bad node": Case(("--nodes=n1:banana",), ("--nodes", "n1:banana")),
    "unreadable hostfile": Case(("--hostfile=/proc/self/mem",), ("/proc/self/mem", "read")),
    "missing web configuration": Case(("--nodes=n1", "--web.config.file=none.yml"), ("none.yml",)),
    "telemetry path taken": Case(("--nodes=n1", "--web.telemetry-path=/probe"), ("/probe",)),
    "no binding": Case(("--nodes=n1", "--runtime.transport=binding"), ("clio_runtime_ext",)),
}


def check_refusal(result: object, case: Case) -> None:
    code, output, errors = result.returncode, result.stdout, result.stderr  # type: ignore[attr-defined]
    assert output == ""
    # The error is the last line; before it may be argparse's usage, or what is logged of a good start.
    *before, error = errors.strip().splitlines()
    assert error.startswith("clio-exporter")
    for part in case.says:
        assert part in (errors if part == "usage:" else error)
    assert "Traceback" not in errors
    assert case.code == 2 or not [line for line in before if "level=info" not in line]
    assert code == case.code


@pytest.mark.parametrize("name", CASES)
def test_bad_arguments_end_the_exporter_with_one_clear_line(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    for file, text in case.files.items():
        write(tmp_path / file, text)
    arguments = ("--web.listen-address=127.0.0.1:0", *case.arguments)
    check_refusal(run_exporter(tmp_path, *arguments, seconds=30), case)


@pytest.mark.parametrize("name", ["broken settings", "missing hostfile", "empty hostfile", "bad node"])
def test_bad_arguments_of_a_single_scrape_end_with_2(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    for file, text in case.files.items():
        write(tmp_path / file, text)
    result = run_exporter(tmp_path, "scrape", *case.arguments, seconds=30)
    check_refusal(result, Case(case.arguments, case.says, code=2))


def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    """A symbolic link that leads to itself is unreadable for root too."""
    (tmp_path / "hosts").symlink_to("hosts")
    result = run_exporter(tmp_path, "--web.listen-address=127.0.0.1:0", "--hostfile=hosts", seconds=30)
    assert result.returncode == 1
    assert "hosts" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_taken_listen_address_is_named(simulated: Simulated, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run_exporter(
            tmp_path, f"--web.listen-address=127.0.0.1:{port}", f"--nodes={simulated.targets[0]}", seconds=30
        )
    assert result.returncode == 1
    assert f"127.0.0.1:{port}" in result.stderr
    assert "Traceback" not in result.stderr


# --- nodes that are none ------------------------------------------------------------------------------


@contextlib.contextmanager
def http_server() -> Iterator[int]:
    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join(10)


@contextlib.contextmanager
def talker(greeting: bytes) -> Iterator[int]:
    """A server that says this to everyone and hangs up when the client does."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(5)
                    connection.sendall(greeting)
                    while connection.recv(4096):
                        pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        ended.set()
        thread.join(10)
        listener.close()


@contextlib.contextmanager
def zeromq(kind: int) -> Iterator[int]:
    """A ZeroMQ socket that is no runtime and answers nothing."""
    with zmq.Context() as context, context.socket(kind) as server:
        server.setsockopt(zmq.LINGER, 0)
        yield server.bind_to_random_port("tcp://127.0.0.1")


def base(port: int) -> str:
    """The node whose client port is `port`."""
    return f"127.0.0.1:{port - CLIENT_PORT}"


def test_what_is_no_runtime_is_told_apart_and_costs_the_others_nothing(
    simulated: Simulated, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        silent = enter(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        others = {
            "unresolvable": "no-such-host.invalid:9413",
            "refused": base(free_port() + CLIENT_PORT),
            "http": base(enter(http_server())),
            "silent": base(silent),
            "ssh": base(enter(talker(b"SSH-2.0-OpenSSH_9.2\r\n"))),
            "garbage": base(enter(talker(bytes(range(1, 200))))),
            # The ZMTP signature is right, what follows is not.
            "liar": base(enter(talker(b"\xff" + bytes(8) + b"\x7f" + b"\x03\x01garbage" + bytes(64)))),
            "publisher": base(enter(zeromq(zmq.PUB))),
            "router": base(enter(zeromq(zmq.ROUTER))),
        }
        expected = {
            "unresolvable": {"unresolvable"},
            "refused": {"refused"},
            # It waits for its client to speak, so that it cannot be told from a hung runtime.
            "http": {"hung"},
            "silent": {"hung"},
            "ssh": {"not_a_runtime"},
            "garbage": {"not_a_runtime"},
            "liar": {"not_a_runtime", "connection_lost"},
            "publisher": {"not_a_runtime", "connection_lost"},
            # Found out after three steps of 1.5 s, more than one scrape's time.
            "router": {"unsupported"},
        }
        nodes = [simulated.targets[0], *others.values(), simulated.targets[1]]
        last = len(nodes) - 1
        ids = {name: str(index) for index, name in enumerate(others, start=1)}
        with ExporterProcess(tmp_path, f"--nodes={','.join(nodes)}", "--runtime.timeout=2s") as exporter:
            names: set[str] = set()

            def settled(scrape: Scrape) -> bool:
                # In every scrape, from the first on, the healthy nodes are whole and the others down.
                assert is_complete(scrape, 0)
                assert is_complete(scrape, last)
                assert scrape.seconds < 10
                found = reasons(scrape)
                assert found.keys() == set(ids.values())
                names.update(f"{name}:{found[node_id]}" for name, node_id in ids.items())
                return all(found[ids[name]] in allowed for name, allowed in expected.items())

            # Not `scrape_until`: an assertion that fails must fail the test.
            for _ in range(12):
                if settled(exporter.scrape(timeout=5)):
                    break
            else:
                pytest.fail(f"reasons seen: {sorted(names)}")
            log = exporter.log
            for name, target in others.items():
                lines = [line for line in log.splitlines() if f"node={target} " in line]
                assert len(lines) == 1, f"{name}: {lines}"
                assert "level=warn" in lines[0]
                assert "reason=" in lines[0]
                assert "error=" in lines[0]
            assert "Traceback" not in log
            assert "name service" in next(line for line in log.splitlines() if "no-such-host" in line)


def test_a_hung_node_stays_down_for_jobs_that_ask_little(simulated: Simulated, tmp_path: Path) -> None:
    """Two jobs, one of everything and one of pools, which are remembered: one state of the node."""
    nodes = ",".join(simulated.targets)
    with ExporterProcess(tmp_path, f"--nodes={nodes}", "--runtime.timeout=2s") as exporter:
        exporter.scrape_until("all are up", lambda scrape: all(is_complete(scrape, i) for i in range(3)))
        simulated.process.set_fault(1, "silent")
        jobs = ("/metrics", "/metrics?collect[]=pool")
        for job in jobs * 3:
            scrape = exporter.scrape(job, timeout=10)
            assert {labels["node_id"] for labels, _ in scrape.series("clio_pool_info")} == {"0", "2"}
            assert "3 nodes, 2 up at the latest collection" in exporter.get("/").text, job
        simulated.process.clear()
        simulated.process.restart_node(1)
        exporter.scrape_until("it is up again", lambda scrape: is_complete(scrape, 1))
        about = [line for line in exporter.log.splitlines() if f"node={simulated.targets[1]} " in line]
        assert ["is down" in line for line in about] == [True, False], about


def test_a_single_scrape_says_which_nodes_are_down_and_why(simulated: Simulated, tmp_path: Path) -> None:
    refused = base(free_port() + CLIENT_PORT)
    nodes = f"--nodes={simulated.targets[0]},{refused},no-such-host.invalid"
    result = run_exporter(tmp_path, "scrape", nodes, "--runtime.reply-port=0")
    assert result.returncode == 3
    scrape = Scrape(result.stdout)
    assert is_complete(scrape, 0)
    assert reasons(scrape) == {"1": "refused", "2": "unresolvable"}
    assert f"{refused} is down" in result.stderr
    assert "no-such-host.invalid:9413 is down" in result.stderr
    assert len(result.stderr.splitlines()) <= 4  # the two, and at most as many log lines
    nobody = run_exporter(tmp_path, "scrape", f"--nodes={refused}", "--runtime.reply-port=0")
    assert nobody.returncode == 1


def test_one_runtime_under_two_names_is_asked_once(tmp_path: Path) -> None:
    port = free_port(14)
    options = ["--nodes", "2", "--address", "127.0.0.1", "--same-address", "--base-port", str(port)]
    with SimulatorProcess(*options, "--workers", str(WORKERS), "--bdevs", "1") as process:
        nodes = f"--nodes=localhost:{port},127.0.0.1:{port},127.0.0.1:{port + 10}"
        with ExporterProcess(tmp_path, nodes) as exporter:
            for _ in range(3):
                scrape = exporter.scrape()
                assert is_complete(scrape, 2)
                up = scrape.by("node_id", "clio_node_up")
                assert sorted((up["0"], up["1"])) == [0, 1]
                assert is_complete(scrape, 0 if up["0"] else 1)
            assert "are the same runtime" in exporter.log
        assert process.stats()["violations"] == {}


# --- /probe -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def watched_node() -> Iterator[tuple[str, list[socket.socket]]]:
    """A target where nobody should connect: listeners on its base port and on its client port."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        listeners = [
            stack.enter_context(socket.create_server(("127.0.0.1", port + offset)))
            for offset in (0, CLIENT_PORT)
        ]
        for listener in listeners:
            listener.settimeout(0.3)
        yield f"127.0.0.1:{port}", listeners


def nobody_connected(listeners: list[socket.socket]) -> bool:
    for listener in listeners:
        try:
            listener.accept()[0].close()
        except TimeoutError:
            continue
        return False
    return True


def test_probe_refuses_what_is_no_member_and_does_not_connect(simulated: Simulated, tmp_path: Path) -> None:
    member, stranger = simulated.targets[0], simulated.targets[2]
    with ExporterProcess(tmp_path, f"--nodes={member}") as exporter, watched_node() as (target, listeners):
        for query, status, says in [
            ("", 400, "target"),
            ("?target=", 400, "target"),
            ("?target=a&target=b", 400, "target"),
            ("?target=host:port", 400, "host:port"),
            ("?target=host:0", 400, "host:0"),
            ("?target=host:99999", 400, "host:99999"),
            ("?target=http://127.0.0.1:80/", 400, "target"),
            ("?target=a%20b", 400, "target"),
            ("?target=a%0d%0ab:1", 400, "target"),
            ("?target=%5B::1%5D:80", 404, "not a member"),
            (f"?target={target}", 404, "not a member"),
            (f"?target={stranger}", 404, "--probe.allow-any"),
            ("?target=localhost", 400, "host:port"),
            ("?target=localhost:9413", 404, "not a member"),
            (f"?target={member}&collect[]=nonsense", 400, "nonsense"),
        ]:
            answer = exporter.get(f"/probe{query}")
            assert (answer.status, says in answer.text) == (status, True), f"{query}: {answer.text}"
            assert len(answer.text) < 500
        assert nobody_connected(listeners)
        simulated.process.reset_stats()
        assert exporter.get(f"/probe?target={stranger}").status == 404
        assert simulated.process.describe(2)["requests"] == 0
        # The member is served all the while, by its name as /sd gives it.
        assert is_complete(exporter.scrape(f"/probe?target={member}"), 0)
        assert is_complete(exporter.scrape(), 0)


def test_probe_asks_anybody_where_that_is_allowed(simulated: Simulated, tmp_path: Path) -> None:
    member, stranger = simulated.targets[0], simulated.targets[2]
    arguments = (f"--nodes={member}", "--probe.allow-any", "--runtime.timeout=2s")
    with ExporterProcess(tmp_path, *arguments) as exporter, watched_node() as (target, listeners):
        found = exporter.scrape(f"/probe?target={stranger}")
        assert found.by("hostname", "clio_node_up") == {stranger.split(":")[0]: 1}
        assert len(found.series("clio_worker_running")) == WORKERS
        # A target that is no runtime is a result too.
        down = exporter.scrape(f"/probe?target={target}")
        assert down.by("hostname", "clio_node_up") == {"127.0.0.1": 0}
        assert not nobody_connected(listeners[1:])
        # The cluster itself has one node still.
        assert exporter.scrape().by("node_id", "clio_node_up") == {"0": 1}


# --- changes while it runs ----------------------------------------------------------------------------


def settings(*targets: str) -> str:
    return yaml.safe_dump({"clusters": [{"name": "alpha", "nodes": list(targets)}]})


BROKEN = "clusters:\n  - name: alpha\n    nodes: [\n"
LAST_RELOAD = "clio_exporter_config_last_reload_successful"


@pytest.mark.parametrize("how", ["post", "sighup"])
def test_a_broken_reload_keeps_the_old_settings(how: str, simulated: Simulated, tmp_path: Path) -> None:
    first, second = simulated.targets[:2]
    path = write(tmp_path / "settings.yml", settings(first))
    with ExporterProcess(tmp_path, f"--config.file={path}", "--web.enable-lifecycle") as exporter:

        def reload(status: int) -> str:
            if how == "post":
                answer = exporter.get("/-/reload", method="POST")
                assert answer.status == status
                return exporter.log
            exporter.signal(signal.SIGHUP)
            wanted = 0 if status == 500 else 1
            eventually("the signal had its effect", lambda: exporter.scrape().value(LAST_RELOAD) == wanted)
            return exporter.log

        before = exporter.scrape()
        assert is_complete(before, 0)
        assert before.value(LAST_RELOAD) == 1
        for broken in (BROKEN, "clusters: 7\n", None):
            if broken is None:
                path.unlink()
            else:
                write(path, broken)
            said = reload(500)
            assert "settings.yml" in said
            if broken == BROKEN:
                assert "settings.yml:3:" in said or "settings.yml:3:" in said
            scrape = exporter.scrape()
            assert is_complete(scrape, 0)
            assert scrape.value("clio_cluster_nodes", cluster="alpha") == 1
            assert scrape.value(LAST_RELOAD) == 0
            assert scrape.names >= before.names
        write(path, settings(first, second))
        reload(200)
        after = exporter.scrape_until(
            "both nodes are up", lambda s: s.by("node_id", "clio_node_up") == {"0": 1, "1": 1}
        )
        assert is_complete(after, 0)
        assert is_complete(after, 1)
        assert after.value(LAST_RELOAD) == 1


def test_a_broken_hostfile_keeps_the_old_nodes(simulated: Simulated, tmp_path: Path) -> None:
    first, second = simulated.targets[:2]
    hostfile = write(tmp_path / "hosts", f"{first}\n")
    with ExporterProcess(tmp_path, f"--hostfile={hostfile}") as exporter:
        assert is_complete(exporter.scrape(), 0)
        for broken in ("bad:port\n", "", None):
            if broken is None:
                hostfile.unlink()
            else:
                write(hostfile, broken)
            scrape = exporter.scrape_until(
                "the error is noticed", lambda s: s.value("clio_cluster_membership_success") == 0
            )
            assert is_complete(scrape, 0)
            assert scrape.value("clio_cluster_nodes") == 1
        assert "hosts:1:" in exporter.log
        write(hostfile, f"{second}\n{first}\n")
        after = exporter.scrape_until("two nodes", lambda s: s.value("clio_cluster_nodes") == 2)
        assert after.value("clio_cluster_membership_success") == 1
        assert after.by("node_id", "clio_node_up") == {"0": 1, "1": 1}


def test_a_taken_reply_port_is_stepped_over_and_logged(simulated: Simulated, tmp_path: Path) -> None:
    port = free_port()
    with (
        socket.create_server(("127.0.0.1", port)),
        ExporterProcess(tmp_path, f"--nodes={simulated.targets[0]}", reply_port=port) as exporter,
    ):
        assert is_complete(exporter.scrape(), 0)
        listening = {
            connection.laddr.port
            for connection in psutil.Process(exporter.pid).net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {exporter.port, port + 1}
        lines = [line for line in exporter.log.splitlines() if "reply port" in line]
        assert len(lines) == 1
        assert f"wanted={port}" in lines[0]
        assert f"port={port + 1}" in lines[0]
        assert "level=warn" in lines[0]


# --- secrets ------------------------------------------------------------------------------------------

SECRET = "xyzzy-4711"


def test_secrets_of_the_runtime_configuration_never_appear(simulated: Simulated, tmp_path: Path) -> None:
    document = {
        "networking": {"port": 9413, "auth_token": SECRET},
        "storage": [{"path": f"s3://user:{SECRET}@bucket/path"}],
        "site": {
            "url": f"s3://user:{SECRET}@bucket/path",
            "options": f"--region=eu --secret-key={SECRET} --verbose",
            "env": [{"name": "DB_PASSWORD", "value": SECRET}],
            "credentials": {"inner": {"deep": [SECRET]}},
            "apiKey": SECRET,
        },
    }
    path = write(tmp_path / "clio.yaml", yaml.safe_dump(document))
    arguments = (f"--nodes={simulated.targets[0]}", f"--runtime-config={path}", "--log.level=debug")
    with ExporterProcess(tmp_path, *arguments, environment={"CLIO_TOKEN": SECRET}) as exporter:
        scrape = exporter.scrape()
        values = {labels["path"]: labels["value"] for labels, _ in scrape.series("clio_config_info")}
        assert values["networking.port"] == "9413"
        assert values["networking.auth_token"].startswith("<hidden ")
        assert values["storage[0].path"] == "s3://<secret>@bucket/path"
        assert values["site"].startswith("<hidden ")
        assert scrape.value("clio_config_load_success") == 1
        seen = [scrape.text, exporter.get("/").text, exporter.get("/sd").text]
        # A file that cannot be read is named, but not quoted.
        for broken in (f"password: [{SECRET}\n", f"a: *{SECRET}\n", f"password: {SECRET}: {SECRET}\n"):
            write(path, broken)
            os.utime(path, (1, len(broken)))
            scrape = exporter.scrape_until(
                "the file is read again", lambda s: s.value("clio_config_load_success") == 0
            )
            assert is_complete(scrape, 0)
            seen.append(scrape.text)
            write(path, "networking: {port: 9413}\n")
            exporter.scrape_until("it is good again", lambda s: s.value("clio_config_load_success") == 1)
        assert [text for text in (*seen, exporter.log) if SECRET in text] == []


def test_flags_reach_what_they_are_about(tmp_path: Path) -> None:
    """As a process: the exporter's own metrics can be left out, and `/config` tells what is in force."""
    with closed_port() as port:
        arguments = ["--nodes", f"127.0.0.1:{port - 3}", "--generation=C", "--runtime.timeout=500ms"]
        chosen = ["--collector.disable-defaults", "--collector.node", "--web.disable-exporter-metrics"]
        with ExporterProcess(tmp_path, *arguments, *chosen) as exporter:
            found = exporter.scrape().names
            shown = yaml.safe_load(exporter.get("/config").text)
    assert "clio_node_up" in found
    assert not [name for name in found if name.startswith(("clio_exporter_", "process_", "python_"))]
    assert shown["clusters"] == [{"nodes": [f"127.0.0.1:{port - 3}"], "generation": "C"}]
    assert shown["collectors"]["enabled"] == ["node"]
    assert shown["runtime"]["timeout"] == 0.5
    assert shown["flags"]["--web.disable-exporter-metrics"] is True
