"""An action reaches the node that the user saw, or is refused with both names."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clio_client.membership import Member
from clio_client.protocol.records import HostInfo
from clio_client.transport.interface import NodeAddress
from clio_control_api.action import ActionResult
from clio_control_api.admission import WrongNodeError, check_request, check_runtime
from clio_control_api.performer import Performer
from clio_lab.simulator.process import SimulatorProcess
from tests.unit.control_api.support import Api, control_api

NO_SSH = {"ssh": {"port": 1, "connect_timeout": "1s"}}
"""Nothing listens on port 1: an action that is begun ends at once, with a 502."""

MEMBER = Member("", 1, "compute-01", NodeAddress("compute-01"))
SHUTDOWN = "/api/topology/node/1/shutdown"


@pytest.fixture
def acting(tmp_path: Path, simulator: SimulatorProcess, hosts: str) -> Iterator[Api]:
    with control_api(tmp_path, hosts, **NO_SSH) as built:
        yield built


@pytest.mark.parametrize("hostname", [None, "compute-01", "COMPUTE-01", "10.0.0.7", "n7.cluster"])
def test_names_of_member_and_runtime_both_mean_the_node(hostname: str | None) -> None:
    check_request(MEMBER, HostInfo("n7.cluster", "10.0.0.7", 1), hostname)


@pytest.mark.parametrize("host", [None, HostInfo("n7", "10.0.0.7", 1), HostInfo("0.0.0.0", "0.0.0.0", 0)])
@pytest.mark.parametrize("hostname", ["compute-02", "compute", "0.0.0.0", ""])
def test_another_name_is_refused_with_both(host: HostInfo | None, hostname: str) -> None:
    with pytest.raises(WrongNodeError, match=rf"compute-01.* now, not {hostname}: .*Load the dashboard"):
        check_request(MEMBER, host, hostname)


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        (HostInfo("compute-01", "10.0.0.7", 1), True),
        (HostInfo("compute-01", "10.0.0.7", 0), False),
        (HostInfo("compute-01-ib", "10.1.0.7", 1), True),  # its name on another network
        (HostInfo("compute-09", "10.0.0.9", 9), False),
        (HostInfo("compute-01", "10.0.0.7", None), True),
        (HostInfo("0.0.0.0", "0.0.0.0", 0), True),  # it has no hostfile, and cannot know
    ],
)
def test_the_runtimes_own_idea_of_who_it_is_counts(host: HostInfo, fine: bool) -> None:
    if fine:
        check_runtime(MEMBER, host)
        return
    with pytest.raises(
        WrongNodeError, match=rf"node 1 \(compute-01\).*node {host.node_id} \({host.hostname}"
    ):
        check_runtime(MEMBER, host)


def test_a_request_that_names_the_node_is_carried_out(acting: Api, simulator: SimulatorProcess) -> None:
    own = simulator.describe(1)["hostname"]
    for name in ("127.96.0.2", own, own.upper()):
        assert acting.post(SHUTDOWN, query_string={"hostname": name}).status_code == 502
    assert acting.post(SHUTDOWN).status_code == 502
    assert [record["event"] for record in acting.audit()] == ["begin", "end"] * 4


def test_a_request_for_another_host_is_refused_and_written_down(acting: Api) -> None:
    answer = acting.post(SHUTDOWN, query_string={"hostname": "127.96.0.1"})
    assert answer.status_code == 409
    assert "127.96.0.2" in answer.json["error"]
    assert "not 127.96.0.1" in answer.json["error"]
    (record,) = acting.audit()
    assert (record["event"], record["status"], record["node_id"]) == ("refused", 409, "1")
    assert acting.post(SHUTDOWN, query_string="hostname=a&hostname=a").status_code == 400


def test_a_link_of_before_the_renumbering_is_refused(acting: Api, hosts: str) -> None:
    link = {"hostname": "127.96.0.2"}
    assert acting.get("/nodes/1/restart", query_string=link).status_code == 200
    (acting.home / "hosts").write_text("127.96.0.250:1\n" + hosts)
    page = acting.get("/nodes/1/restart", query_string=link)
    assert page.status_code == 409
    assert "127.96.0.1" in page.text
    assert "not 127.96.0.2" in page.text


def test_a_runtime_that_says_it_is_another_node_is_left_alone(acting: Api, hosts: str) -> None:
    lines = hosts.splitlines()
    (acting.home / "hosts").write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")
    answer = acting.post(SHUTDOWN, query_string={"hostname": "127.96.0.1"})
    assert answer.status_code == 409
    assert "node 1 (127.96.0.1)" in answer.json["error"]
    assert "it is node 0" in answer.json["error"]
    assert "hostfile" in answer.json["error"]
    assert acting.get("/nodes/1/restart").status_code == 409
    assert [record["event"] for record in acting.audit()] == ["refused"]


def test_a_node_that_does_not_answer_can_be_acted_on(acting: Api, simulator: SimulatorProcess) -> None:
    simulator.set_fault(1, "refused")
    assert acting.post(SHUTDOWN, query_string={"hostname": "127.96.0.2"}).status_code == 502
    assert acting.post(SHUTDOWN, query_string={"hostname": "127.96.0.1"}).status_code == 409


def test_the_confirm_page_carries_the_name_to_the_action(acting: Api, hosts: str) -> None:
    page = acting.get("/nodes/1/restart", query_string={"hostname": "127.96.0.2"}).text
    assert '<input type="hidden" name="hostname" value="127.96.0.2">' in page
    secret = page.split('name="csrf" value="')[1].split('"')[0]
    (acting.home / "hosts").write_text("127.96.0.250:1\n" + hosts)
    form = {"csrf": secret, "hostname": "127.96.0.2"}
    answer = acting.post("/nodes/1/restart", data=form)
    assert answer.status_code == 409
    assert "127.96.0.1" in answer.text
    assert [record["event"] for record in acting.audit()] == ["refused"]


def test_the_page_of_a_busy_node_has_a_way_back(acting: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    monkeypatch.setattr(Performer, "perform", lambda *_: stop.wait(60) and ActionResult("success", 0))
    client = acting.built.app.test_client()
    headers = {"Authorization": f"Bearer {acting.own_token}"}
    thread = threading.Thread(target=lambda: client.post(SHUTDOWN, headers=headers))
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while "is under way on this node" not in (page := acting.get("/nodes/1/restart").text):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        stop.set()
        thread.join(30)
    assert ">See how it goes</a>" in page
    assert '<a class="button" href="/">Cancel</a>' in page


def test_an_action_whose_thread_cannot_start_leaves_the_node_free(
    acting: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def no_more(thread: threading.Thread) -> None:
        if thread.name == "shutdown-1":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        answer = acting.post(SHUTDOWN)
        assert answer.status_code == 503
        assert "can't start new thread" in answer.json["error"]
    events = [(record["event"], record.get("outcome")) for record in acting.audit()]
    assert events == [("begin", None), ("end", "error")]
    assert acting.post(SHUTDOWN).status_code == 502
    assert "clio_control_actions_running 0.0" in acting.get("/metrics").text
    started = time.monotonic()
    acting.built.services.runner.close()
    assert time.monotonic() - started < 5
