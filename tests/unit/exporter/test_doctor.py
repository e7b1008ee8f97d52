"""`clio-exporter doctor`: pure checks, and the command over simulated nodes and services of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from clio_client import __version__
from clio_client.config.fields import Field
from clio_client.config.membership_source import HostfileNodes
from clio_client.membership import Member
from clio_client.transport.interface import NodeAddress
from clio_exporter.doctor import checks_nodes, checks_services, services
from clio_exporter.doctor.checks import CHECKS
from clio_exporter.doctor.model import Finding, Status, as_json, as_text, exit_status, named, worst
from clio_exporter.doctor.nodes import ClusterLook, NodeLook, NodesLook
from clio_exporter.doctor.services import PrometheusLook
from clio_exporter.doctor.ssh import SshOptions
from clio_exporter.service_client import Answer, OddAnswerError, Service, service_url
from clio_lab.simulator.process import SimulatorProcess
from tests.ports import closed_port, free_port
from tests.unit.exporter.conftest import Run


@pytest.fixture(scope="module")
def simulator() -> Iterator[tuple[SimulatorProcess, str]]:
    port = free_port()
    with SimulatorProcess(
        "--nodes", "3", "--base-port", str(port), "--address", "127.96.7.1", "--age", "50", "--workers", "2"
    ) as process:
        yield process, ",".join(f"127.96.7.{i}:{port}" for i in (1, 2, 3))
        assert process.stats()["violations"] == {}


@pytest.fixture
def nodes(simulator: tuple[SimulatorProcess, str]) -> Iterator[str]:
    yield simulator[1]
    simulator[0].clear()


@pytest.fixture
def run(run_command: Run) -> Run:
    """Runs `doctor`."""
    return partial(run_command, "doctor", "--runtime.reply-port", "0")


def ask(run: Run, *arguments: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """Exit status, and the findings by check."""
    status, out, err = run("--format", "json", *arguments)
    assert err == ""
    found: dict[str, list[dict[str, str]]] = {}
    for finding in json.loads(out)["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    return status, found


@contextmanager
def serving(answers: Mapping[str, tuple[int, Any]]) -> Iterator[str]:
    """A server that answers these paths with JSON (bytes: as they are); yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path.partition("?")[0], (404, {}))
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", data.decode())
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Authorization", self.headers.get("Authorization", ""))
            self.end_headers()
            self.wfile.write(data)
            seen.append((self.path, self.headers.get("Authorization", "")))

        def log_message(self, format: str, *args: Any) -> None:
            pass

    seen: list[tuple[str, str]] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(10)


# --- findings --------------------------------------------------------------------------------------------


def test_a_warning_is_no_failure_and_the_worst_counts() -> None:
    fine, warned = Finding("a", Status.OK, "x"), Finding("b", Status.WARN, "y", "do z")
    assert exit_status([fine, warned]) == 0
    assert exit_status([warned, Finding("c", Status.FAIL, "w"), fine]) == 1
    assert worst([Finding("d", Status.SKIPPED, "")]) is Status.SKIPPED
    assert json.loads(as_json([fine, warned])) == {
        "version": __version__,
        "status": "warn",
        "findings": [
            {"check": "a", "status": "ok", "seen": "x", "remedy": ""},
            {"check": "b", "status": "warn", "seen": "y", "remedy": "do z"},
        ],
    }


def test_text_fits_a_terminal_and_sums_up() -> None:
    text = as_text(
        [Finding("answers", Status.FAIL, "word " * 60, "remedy " * 40), Finding("x", Status.OK, "y")]
    )
    assert max(map(len, text.splitlines())) <= 110
    assert "-> remedy" in text
    assert text.endswith("\n1 fail, 1 ok\n")


def test_many_names_are_shortened() -> None:
    assert named(["a", "b"]) == "a, b"
    assert named([str(n) for n in range(1000)]) == "0, 1, 2, 3, 4, 5, 6, 7 and 992 more"


# --- nodes -----------------------------------------------------------------------------------------------


def test_healthy_nodes(run: Run, nodes: str) -> None:
    status, found = ask(run, "--nodes", nodes, "--generation", "C")
    assert status == 0
    assert {name: {f["status"] for f in rows} for name, rows in found.items()} == {
        **{name: {"ok"} for name in ("hostfile", "ports to nodes", "answers", "runtimes")},
        **{name: {"ok"} for name in ("node ids", "duplicates", "versions", "clocks")},
        **{
            name: {"skipped"} for name in ("ssh", "exporter", "prometheus", "rules", "grafana", "control api")
        },
    }
    assert len(found) == len(CHECKS)
    assert "127.0.0.1:" in found["answers"][0]["seen"] or "127.96.7." in found["answers"][0]["seen"]


@pytest.mark.parametrize(
    ("fault", "check", "words"),
    [
        ("refused", "ports to nodes", "refused: 1 ("),
        ("hang", "answers", "nothing greets where TCP connects"),
        ("silent", "answers", "the runtime greets, but no answer came back to "),
        ("non-zmq", "answers", "or it is another kind of server"),
        ("error-rc:7", "runtimes", "query_failed: 1 ("),
    ],
)
def test_a_faulty_node_is_told_by_its_kind(
    run: Run, simulator: tuple[SimulatorProcess, str], nodes: str, fault: str, check: str, words: str
) -> None:
    simulator[0].set_fault(1, fault)
    status, found = ask(run, "--nodes", nodes, "--generation", "C", "--timeout", "2s")
    assert status == 1
    (finding,) = [f for f in found[check] if f["status"] == "fail"]
    assert words in finding["seen"]
    assert finding["remedy"]
    others = {f["check"] for rows in found.values() for f in rows if f["status"] == "fail"}
    assert others == {check}


def test_nodes_in_another_order_than_the_runtimes_have(run: Run, nodes: str) -> None:
    first, second, third = nodes.split(",")
    status, found = ask(run, "--nodes", f"{second},{first},{third}", "--generation", "C")
    assert status == 1
    (finding,) = found["node ids"]
    assert finding["seen"] == f"0 ({second}) calls itself 1, 1 ({first}) calls itself 0"
    assert "hostfile" in finding["remedy"]


def test_a_hostfile_that_is_missing(run: Run, tmp_path: Path) -> None:
    status, found = ask(run, "--hostfile", str(tmp_path / "none"))
    assert status == 1
    (finding,) = found["hostfile"]
    assert finding["status"] == "fail"
    assert str(tmp_path / "none") in finding["seen"]
    assert finding["remedy"] not in ("", finding["seen"])
    assert {rows[0]["status"] for name, rows in found.items() if name != "hostfile"} == {"skipped"}


def test_comments_in_the_hostfile_and_names_twice(run: Run, nodes: str, tmp_path: Path) -> None:
    listed = nodes.split(",")
    (tmp_path / "hosts").write_text("# ours\n" + "\n".join(listed) + "\n")
    status, found = ask(run, "--hostfile", "hosts", "--generation", "C")
    assert status == 0
    assert [f["status"] for f in found["hostfile"]] == ["warn", "ok"]
    assert "hosts:1: the runtime does not know comments" in found["hostfile"][0]["seen"]


def test_clocks_that_are_not_known() -> None:
    assert next(checks_nodes.clocks(NodesLook())).status is Status.SKIPPED


@pytest.mark.parametrize(
    ("skew", "status"),
    [(-2.1, Status.WARN), (-1.9, Status.OK), (0.0, Status.OK), (4.9, Status.OK), (5.1, Status.WARN)],
)
def test_how_far_a_clock_may_be_off(skew: float, status: Status) -> None:
    member = Member("", 3, "node3", NodeAddress("node3", 5555))
    cluster = ClusterLook(
        "", HostfileNodes(Path("hosts"), "--hostfile", 5555), (NodeLook(member, skew=skew),)
    )
    (finding,) = checks_nodes.clocks(NodesLook((cluster,)))
    assert finding.status is status
    assert f"{abs(skew):.1f} s" in finding.seen
    assert ("ahead" in finding.seen) == (skew < -2)


def test_unusable_options_are_usage_errors(run: Run) -> None:
    assert run("--timeout", "0")[0] == 2
    assert run("--grafana.token-file", "x")[0] == 2
    status, out, err = run("--prometheus", "localhost:9090")
    assert (status, out) == (2, "")
    assert "http://host:port" in err


def test_a_password_in_an_address_is_refused(run: Run) -> None:
    status, _, err = run("--grafana", "http://admin:secret@localhost:3000")
    assert status == 2
    assert "secret" not in err


# --- SSH -------------------------------------------------------------------------------------------------


def test_ssh_asks_nothing_and_takes_no_host_for_an_option(tmp_path: Path) -> None:
    line = SshOptions("me", 2222, tmp_path).command("node1", ["true"])
    assert line[-3:] == ["--", "node1", "true"]
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "UpdateHostKeys=no"} <= set(line)
    assert line[line.index("-l") + 1] == "me"
    assert line[line.index("-p") + 1] == "2222"
    assert line[line.index("-F") + 1] == str(tmp_path)


# --- services --------------------------------------------------------------------------------------------


def statuses(findings: Iterator[Finding]) -> list[tuple[str, str]]:
    return [(finding.status.value, finding.seen) for finding in findings]


@pytest.mark.parametrize(
    "text", ["localhost:9090", "ftp://h", "http://", "http://h/?a=b", "http://u@h", "http://[x"]
)
def test_what_is_no_address_of_a_service(text: str) -> None:
    with pytest.raises(Exception, match="--prometheus"):
        service_url(Field.given(text, "--prometheus"))


def test_a_service_that_is_not_there() -> None:
    with closed_port() as port:
        answer = Service(f"http://127.0.0.1:{port}", 2).get("/")
    assert not answer.ok
    assert "refused" in str(answer)


def test_a_token_goes_along_but_not_after_a_redirect() -> None:
    with serving({"/other": (200, {})}) as other, serving({"/": (302, f"{other}/other".encode())}) as url:
        answer = Service(url, 5, "secret").get("/")
    assert answer.status == 302


def test_a_prometheus_that_has_just_started() -> None:
    def seen(*targets: dict[str, Any]) -> list[str]:
        answer = Answer(200, json.dumps({"data": {"activeTargets": targets}}).encode())
        look = PrometheusLook("http://p", answer)
        return [status for status, _ in statuses(checks_services.scraped(look))]

    foreign = {"scrapePool": "x", "labels": {"job": "x", "instance": "i"}}
    assert seen({**foreign, "health": "unknown"}) == ["warn"]
    assert seen({**foreign, "health": "up"}) == ["fail"]


def test_an_exporter_of_another_version_and_one_that_sees_no_node() -> None:
    metrics = b'clio_exporter_build_info{python="3",version="0.0.1"} 1\nclio_node_up{node_id="0"} 0\n'
    with serving({"/metrics": (200, metrics)}) as url:
        found = statuses(checks_services.exporter(services.look_at_exporter(Service(url, 5))))
    assert found[0] == ("warn", f"{url} is version 0.0.1, this command {__version__}")
    assert found[1] == ("fail", f"{url} serves; 0 of 1 nodes are up")
    with serving({"/metrics": (401, b"")}) as url:
        assert statuses(checks_services.exporter(services.look_at_exporter(Service(url, 5))))[0][0] == "warn"


def prometheus_answer(data: Any) -> Answer:
    return Answer(200, json.dumps({"status": "success", "data": data}).encode())


def test_what_is_no_target_or_rule_is_passed_over() -> None:
    ours = {"labels": {"job": "clio-exporter"}, "scrapeUrl": "http://[x", "health": "up"}
    targets = prometheus_answer({"activeTargets": [1, {"labels": 2}, ours]})
    rules = prometheus_answer({"groups": [1, {"rules": 2}, {"rules": [3, {"name": 4}, {}]}]})
    look = PrometheusLook("http://p", targets, rules=rules, alertmanagers=prometheus_answer(5))
    assert [s for s, _ in statuses(checks_services.scraped(look, "http://[x"))] == ["ok"]
    assert [s for s, _ in statuses(checks_services.rules(look))] == ["fail"]


@pytest.mark.parametrize(
    "result",
    [
        1, "x", [{"metric": {}}], [{"value": [1]}], [{"value": [1, "one"]}], [{"value": ["NaN", "1"]}],
        [{"value": [1e308, "1"]}],
        [{"value": [1, 10**400]}], [{"values": [1]}], [{"values": 1}], [{"values": [[1, "1", 2]]}],
    ],
)  # fmt: skip
def test_answers_that_are_not_as_prometheus_documents_them(result: Any) -> None:
    answer = prometheus_answer({"resultType": "vector", "result": result})
    for read in (answer.vector, answer.matrix, answer.scalar):
        with pytest.raises(OddAnswerError):
            read()


def test_answers_as_prometheus_documents_them() -> None:
    vector = [{"metric": {"a": "b", "c": 1}, "value": [1.5, "+Inf"]}, "left out"]
    assert prometheus_answer({"result": vector}).vector() == [({"a": "b"}, float("inf"))]
    matrix = [{"metric": 1, "values": [[1, "2"], [2, "3.5"]]}]
    assert prometheus_answer({"result": matrix}).matrix() == [({}, [(1.0, 2.0), (2.0, 3.5)])]
    assert prometheus_answer({"result": [1, "7"]}).scalar() == 7.0
    assert Answer(200, b"[" * 5000).document is None
    assert Answer(400, b'{"error": "parse error"}').error == "parse error"
    assert Answer(400, b"<html>").error == "HTTP status 400"


def test_rules_that_are_missing_or_cannot_be_evaluated() -> None:
    def look(names: list[dict[str, str]], managers: list[Any]) -> PrometheusLook:
        def answer(data: Any) -> Answer:
            return Answer(200, json.dumps({"data": data}).encode())

        return PrometheusLook(
            "http://p", answer({"activeTargets": []}), rules=answer({"groups": [{"rules": names}]}),
            alertmanagers=answer({"activeAlertmanagers": managers}),
        )  # fmt: skip

    every = [
        {"name": getattr(rule, "name", None) or rule.record, "health": "ok"}
        for file in checks_services.FILES for group in file.groups for rule in group.rules
    ]  # fmt: skip
    assert [s for s, _ in statuses(checks_services.rules(look([], [])))] == ["fail"]
    assert [s for s, _ in statuses(checks_services.rules(look(every, [{}])))] == ["ok"]
    assert [s for s, _ in statuses(checks_services.rules(look(every, [])))] == ["ok", "warn"]
    gone = every[0]["name"]
    missing = statuses(checks_services.rules(look([r for r in every if r["name"] != gone], [{}])))
    assert missing[0][0] == "warn"
    assert missing[0][1].endswith(f"rules: {gone}")
    broken = [{**every[0], "health": "err", "lastError": "many-to-many"}, *every[1:]]
    assert ("fail", f"{gone} cannot be evaluated: many-to-many") in statuses(
        checks_services.rules(look(broken, [{}]))
    )


def test_grafana_and_its_data_sources() -> None:
    answers: dict[str, tuple[int, Any]] = {
        "/api/health": (200, {"database": "ok"}),
        "/api/datasources": (200, [{"name": "Prometheus", "uid": "p"}, {"name": "Search", "uid": "s"}]),
        "/api/datasources/uid/p/health": (200, {"status": "OK"}),
        "/api/datasources/uid/s/health": (400, {"status": "ERROR", "message": "connection refused"}),
    }
    with serving(answers) as url:
        found = statuses(checks_services.grafana(services.look_at_grafana(Service(url, 5))))
    assert found == [
        ("ok", "data source Prometheus answers"),
        ("fail", "data source Search: connection refused"),
    ]
    for change, status in (
        ({"/api/datasources": (403, {})}, "warn"),
        ({"/api/datasources": (200, [])}, "fail"),
        ({"/api/health": (404, {})}, "fail"),
        ({"/api/health": (200, {"status": "up"})}, "fail"),
    ):
        with serving({**answers, **change}) as url:
            found = statuses(checks_services.grafana(services.look_at_grafana(Service(url, 5))))
        assert [s for s, _ in found] == [status], change


def test_a_data_source_whose_id_cannot_be_written_is_asked_for_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [b'{"database": "ok"}', b'[{"name": "x", "uid": "\\ud800"}]', b'{"status": "OK"}']
    asked: list[str] = []

    def ask(_: Service, where: str, *_more: Any) -> Answer:
        asked.append(where)
        return Answer(200, answers.pop(0))

    monkeypatch.setattr(Service, "_ask", ask)
    look = services.look_at_grafana(Service("http://g", 1))
    assert asked[-1] == "http://g/api/datasources/uid/%3F/health"
    assert [status for status, _ in statuses(checks_services.grafana(look))] == ["ok"]


def test_the_control_api() -> None:
    for answer, status in (
        ((200, {"connected": True}), "ok"),
        ((401, {"error": "no token"}), "ok"),
        ((503, {"error": "no runtime"}), "fail"),
        ((200, {}), "fail"),
        ((404, b"<html>"), "fail"),
    ):
        with serving({"/api/system": answer}) as url:
            found = statuses(checks_services.control_api(services.look_at_control_api(Service(url, 5))))
        assert [s for s, _ in found] == [status], answer
