"""Actions against a real sshd: every fault its own clear answer, nothing left running on either side."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.sshd import Sshd, make_key
from tests.ports import free_port
from tests.system import needs_system
from tests.unit.control_api.support import control_api

pytestmark = [pytest.mark.integration, needs_system("sshd")]

SHUTDOWN = "/api/topology/node/0/shutdown"
RESTART = "/api/topology/node/0/restart"
BOUNDED = 45.0
"""Seconds that nothing takes that has a bound, on a busy machine either; without one it takes minutes."""

FIELDS = {"success", "returncode", "stdout", "stderr"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ssh")


@pytest.fixture(scope="module")
def key(place: Path) -> Path:
    return make_key(place / "id")


@pytest.fixture(scope="module")
def bin_dir(place: Path) -> Path:
    """Runtime commands that behave in a given way, one directory each."""
    for name, body in {
        "fine": "echo stopped; echo careful >&2",
        "abort": "echo almost; kill -ABRT $$",
        "fails": "echo 'pool 7 is busy' >&2; exit 9",
        "loud": "head -c 10000000 /dev/zero | tr '\\0' x; echo end; "
        "head -c 1000000 /dev/zero | tr '\\0' y >&2",
        "slow": "sleep 300",
    }.items():
        directory = place / "bin" / name
        directory.mkdir(parents=True)
        (directory / "clio_run").write_text(f"#!/bin/sh\n[ $1 != --help ] || exit 0\n{body}\n")
        (directory / "clio_run").chmod(0o755)
    (place / "bin" / "none").mkdir()
    return place / "bin"


@pytest.fixture(scope="module")
def sshd(place: Path, key: Path, bin_dir: Path) -> Iterator[Sshd]:
    with Sshd(place / "sshd", [key]) as running:
        yield running
        running.await_no_sessions()


class Setup:
    """Makes control APIs for one node that is never up, and checks that nothing stays behind."""

    def __init__(self, home: Path, bin_dir: Path, key: Path, sshd: Sshd) -> None:
        self.home = home
        self.bin_dir = bin_dir
        self.sshd = sshd
        self.node = f"127.0.0.1:{free_port()}"
        self.defaults: dict[str, Any] = {
            "port": sshd.port, "key_file": str(key), "agent": False, "connect_timeout": "3s",
            "config_file": str(home / "no-config"), "start_timeout": "1s",
        }  # fmt: skip

    def act(
        self, path: str = SHUTDOWN, command: str = "fine", **ssh: Any
    ) -> tuple[int, dict[str, Any], float]:
        """Status, document and seconds of one action."""
        before = threading.active_count()
        with self.api(command, **ssh) as api:
            started = time.monotonic()
            answer = api.post(path)
            seconds = time.monotonic() - started
            deadline = time.monotonic() + BOUNDED
            while any(t.name.startswith(("shutdown-", "restart-", "Thread-")) for t in threading.enumerate()):
                assert time.monotonic() < deadline, threading.enumerate()
                time.sleep(0.02)
        assert threading.active_count() <= before
        document: dict[str, Any] = answer.json
        assert set(document) >= FIELDS
        if answer.status_code != 200:
            assert document["success"] is False
            assert document["error"]
            assert document["reason"]
        return answer.status_code, document, seconds

    def api(self, command: str = "fine", **ssh: Any) -> Any:
        environment = {"PATH": f"{self.bin_dir / command}:/usr/bin:/bin", "HOME": str(self.home)}
        settings = {**self.defaults, "environment": environment, **ssh}
        ssh = {k: v for k, v in settings.items() if v is not None}
        return control_api(self.home, f"{self.node}\n", auth="none", ssh=ssh)


@pytest.fixture
def setup(
    tmp_path: Path, bin_dir: Path, key: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Setup]:
    monkeypatch.setenv("HOME", str(tmp_path))  # whose ~/.ssh has the default keys
    yield Setup(tmp_path, bin_dir, key, sshd)
    sshd.await_no_sessions()


def test_a_user_id_without_a_name_can_log_in_as_another(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, whose image need not know the user it runs as."""
    user = getpass.getuser()

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert setup.act(user=user)[0] == 200


def test_success(setup: Setup) -> None:
    status, document, _ = setup.act()
    assert status == 200
    assert len(document.pop("id")) == 16
    assert document == {"success": True, "returncode": 0, "stdout": "stopped\n", "stderr": "careful\n"}
    known = setup.home / ".local/state/clio-control-api/known_hosts"
    assert known.read_text().startswith("[127.0.0.1]:")
    assert known.stat().st_mode & 0o777 == 0o600


def test_a_command_ended_by_sigabrt_is_a_success(setup: Setup) -> None:
    status, document, _ = setup.act(command="abort")
    assert status == 200
    assert (document["success"], document["returncode"]) == (True, 134)


def test_another_exit_code_is_a_failure(setup: Setup) -> None:
    status, document, _ = setup.act(command="fails")
    assert status == 500
    assert (document["returncode"], document["reason"]) == (9, "exit_code")
    assert "pool 7 is busy" in document["error"]


@pytest.mark.parametrize("path", [SHUTDOWN, RESTART])
def test_a_missing_command(setup: Setup, path: str) -> None:
    status, document, _ = setup.act(path, "none")
    assert status == 500
    assert document["returncode"] == 127
    assert "neither clio_run nor chimaera" in document["error"]


def test_ten_megabytes_of_output_are_capped(setup: Setup) -> None:
    status, document, _ = setup.act(command="loud")
    assert status == 200
    assert document["stdout"].endswith("xend\n")
    assert len(document["stdout"]) == len(document["stderr"]) == 64 * 1024
    assert document["omitted_bytes"] == 10_000_004 + 1_000_000 - 2 * 64 * 1024


def test_a_command_that_does_not_end_is_ended(setup: Setup, sshd: Sshd) -> None:
    status, document, seconds = setup.act(command="slow", command_timeout="2s")
    assert status == 504
    assert (document["returncode"], document["reason"]) == (-1, "command_timeout")
    assert seconds < BOUNDED


def test_nothing_listens(setup: Setup) -> None:
    status, document, _ = setup.act(port=free_port())
    assert (status, document["reason"], document["returncode"]) == (502, "refused", -1)


def test_an_unknown_host(setup: Setup) -> None:
    status, document, _ = setup.act(host="nowhere.invalid")
    assert (status, document["reason"]) == (502, "unresolvable")


def test_a_host_that_drops_packets(setup: Setup) -> None:
    """A full backlog: the kernel answers no further SYN, as a host that is down does."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = server.getsockname()
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        status, document, seconds = setup.act(port=address[1])
    assert (status, document["reason"]) == (504, "timeout")
    assert "did not answer within 3 s" in document["error"]
    assert 2.5 < seconds < BOUNDED


def test_an_sshd_that_hangs(setup: Setup) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        status, document, seconds = setup.act(port=silent.getsockname()[1])
    assert (status, document["reason"]) == (504, "timeout")
    assert "did not answer within 3 s" in document["error"]
    assert 2.5 < seconds < BOUNDED


def test_an_sshd_that_is_stopped(setup: Setup, place: Path, key: Path) -> None:
    with Sshd(place / "stopped", [key]) as stopped:
        os.kill(stopped.pid, 19)
        status, document, seconds = setup.act(port=stopped.port)
    assert (status, document["reason"]) == (504, "timeout")
    assert seconds < BOUNDED


def test_a_server_that_closes_at_once(setup: Setup) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def close_one() -> None:
            server.accept()[0].close()

        closing = threading.Thread(target=close_one)
        closing.start()
        status, _, _ = setup.act(port=server.getsockname()[1])
        closing.join()
    assert status == 502  # a wait for its time-out would be a 504


def test_a_changed_host_key_is_refused(setup: Setup, place: Path, key: Path, sshd: Sshd) -> None:
    port = free_port()
    with Sshd(place / "first", [key], port=port):
        assert setup.act(port=port)[0] == 200
    with Sshd(place / "second", [key], port=port):
        status, document, _ = setup.act(port=port)
        assert (status, document["reason"]) == (502, "host_key")
        assert "has changed" in document["error"]
        assert "SHA256:" in document["error"]
        assert setup.act(port=port, host_keys="strict")[0] == 502
        assert setup.act(port=port, host_keys="off")[0] == 200
        assert setup.act(port=port)[0] == 502  # off has remembered nothing


def test_strict_wants_the_key_beforehand(setup: Setup, sshd: Sshd) -> None:
    status, document, _ = setup.act(host_keys="strict")
    assert (status, document["reason"]) == (502, "host_key")
    assert "ssh-keyscan" in document["error"]
    known = setup.home / "known"
    scanned = sshd.host_key.with_name("host_key.pub").read_text()
    known.write_text(f"[127.0.0.1]:{sshd.port} {scanned}")
    assert setup.act(host_keys="strict", known_hosts_file=str(known))[0] == 200


def test_a_key_that_is_not_let_in(setup: Setup) -> None:
    stranger = make_key(setup.home / "stranger")
    status, document, _ = setup.act(key_file=str(stranger))
    assert (status, document["reason"]) == (502, "authentication")
    assert "authorized_keys" in document["error"]


def test_a_user_that_is_not_there(setup: Setup) -> None:
    status, document, _ = setup.act(user="nobody-of-that-name")
    assert (status, document["reason"]) == (502, "authentication")
    assert "nobody-of-that-name" in document["error"]


def test_no_key_file(setup: Setup) -> None:
    status, document, _ = setup.act(key_file=str(setup.home / "missing"))
    assert (status, document["reason"]) == (502, "configuration")
    (setup.home / "junk").write_text("not a key")
    assert setup.act(key_file=str(setup.home / "junk"))[1]["reason"] == "configuration"


def test_encrypted_keys(
    setup: Setup, place: Path, key: Path, monkeypatch: pytest.MonkeyPatch, sshd: Sshd
) -> None:
    for kind in ("ed25519", "ecdsa", "rsa"):
        locked = make_key(setup.home / f"locked-{kind}", "correct horse", kind)
        with Sshd(setup.home / f"sshd-{kind}", [locked]) as own:
            options: dict[str, Any] = {"key_file": str(locked), "port": own.port}
            status, document, _ = setup.act(**options)
            assert (status, document["reason"]) == (502, "passphrase"), kind
            (setup.home / "passphrase").write_text("wrong\n")
            options["passphrase_file"] = str(setup.home / "passphrase")
            assert setup.act(**options)[1]["reason"] == "passphrase"
            (setup.home / "passphrase").write_text("correct horse\n")
            assert setup.act(**options)[0] == 200, kind
            del options["passphrase_file"]
            monkeypatch.setenv("CLIO_CONTROL_API_KEY_PASSPHRASE", "correct horse")
            assert setup.act(**options)[0] == 200
            monkeypatch.delenv("CLIO_CONTROL_API_KEY_PASSPHRASE")


def test_an_agent(setup: Setup, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = setup.home / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(address)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not address.exists():
            assert time.monotonic() < deadline
        monkeypatch.setenv("SSH_AUTH_SOCK", str(address))
        nothing, _, _ = setup.act(key_file=None, agent=True)
        assert nothing == 502
        subprocess.run(["ssh-add", "-q", str(key)], timeout=20, check=True)
        assert setup.act(key_file=None, agent=True)[0] == 200
        assert setup.act(key_file=None, agent=False)[0] == 502
        # With IdentitiesOnly the agent is asked for the named keys alone.
        other, locked = make_key(setup.home / "other"), setup.home / "locked"
        locked.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
        locked.with_name("locked.pub").write_bytes(key.with_name(f"{key.name}.pub").read_bytes())
        config = setup.home / "config"
        for identity, only, status in ((other, "no", 200), (other, "yes", 502), (locked, "yes", 200)):
            config.write_text(f"Host *\n IdentityFile {identity}\n IdentitiesOnly {only}\n")
            assert setup.act(key_file=None, agent=True, config_file=str(config))[0] == status
        # An agent beside a key_file, as beside IdentityFile.
        assert setup.act(key_file=str(locked), agent=True)[0] == 200
        assert setup.act(key_file=str(other), agent=True)[0] == 200
        config.write_text("Host *\n IdentitiesOnly yes\n")
        assert setup.act(key_file=str(other), agent=True, config_file=str(config))[0] == 502
        config.write_text("Host *\n IdentityAgent none\n")
        assert setup.act(key_file=str(other), agent=True, config_file=str(config))[0] == 502
    finally:
        agent.terminate()
        agent.wait(10)


def test_the_users_ssh_config(setup: Setup, key: Path, sshd: Sshd) -> None:
    config = setup.home / "config"
    config.write_text(
        f"Host gate\n HostName 127.0.0.1\n Port {sshd.port}\n User {sshd.user}\n IdentityFile {key}\n"
        f"Host node7\n HostName 127.0.0.1\n Port {sshd.port}\n IdentityFile {key}\n"
        f"Host behind\n HostName 127.0.0.1\n Port {sshd.port}\n IdentityFile {key}\n ProxyJump gate\n"
        "Host twice\n HostName 127.0.0.1\n"
        f" Port {sshd.port}\n IdentityFile {key}\n ProxyJump gate,{sshd.user}@node7\n"
    )
    plain: dict[str, Any] = {"config_file": str(config), "port": None, "key_file": None}
    for host in ("node7", "behind", "twice"):
        status, document, _ = setup.act(host=host, **plain)
        assert status == 200, document
    config.write_text(f"Host behind\n ProxyJump gate\nHost gate\n HostName 127.0.0.1\n Port {free_port()}\n")
    status, document, _ = setup.act(host="behind", **plain)
    assert (status, document["reason"]) == (502, "refused")


RELAY = """\
import os, select, socket, sys
far = socket.create_connection((sys.argv[1], int(sys.argv[2])))
while True:
    for ready in select.select([0, far], [], [])[0]:
        data = os.read(0, 65536) if ready == 0 else far.recv(65536)
        if not data:
            sys.exit()
        far.sendall(data) if ready == 0 else os.write(1, data)
"""


def test_a_proxy_command(setup: Setup, key: Path, sshd: Sshd) -> None:
    before = set(psutil.Process().children())
    (setup.home / "relay.py").write_text(RELAY)
    config, seen = setup.home / "config", setup.home / "seen"
    common = f" HostName 127.0.0.1\n Port {sshd.port}\n IdentityFile {key}\n"
    plain: dict[str, Any] = {"config_file": str(config), "port": None, "key_file": None}
    relay = f"{sys.executable} {setup.home}/relay.py"
    # A shell runs it, and the first of ProxyCommand and ProxyJump counts.
    both = f"sh -c 'echo %n %h %p %r %% >{seen}; exec {relay} %h %p'"
    config.write_text(f"Host odd\n{common} ProxyCommand {both}\n ProxyJump nowhere\n")
    for _ in range(2):
        status, document, _ = setup.act(host="odd", **plain)
        assert status == 200, document
    assert seen.read_text() == f"odd 127.0.0.1 {sshd.port} {sshd.user} %\n"
    config.write_text(f"Host odd\n{common} ProxyCommand none\n ProxyCommand false\n")
    assert setup.act(host="odd", **plain)[0] == 200
    for command, words in (
        ("sh -c 'echo no such bastion >&2; exit 3'", "no such bastion"),
        ("sh -c 'exit 3'", "exit code 3"),
        ("sleep 300 | sleep 300", "did not answer within 3 s"),
    ):
        config.write_text(f"Host odd\n{common} ProxyCommand {command}\n")
        status, document, _ = setup.act(host="odd", **plain)
        assert status in (502, 504)
        assert words in document["error"]
    assert set(psutil.Process().children()) <= before


def test_files_that_the_ssh_config_includes(setup: Setup, key: Path, sshd: Sshd) -> None:
    config = setup.home / "config"
    plain: dict[str, Any] = {"config_file": str(config), "port": None, "key_file": None}
    (setup.home / "ports").write_text(f"Host node7\n Port {sshd.port}\nHost other\n Port 1\n")
    (setup.home / "name.conf").write_text("HostName 127.0.0.1\n")
    config.write_text(
        f"Include {setup.home}/ports {setup.home}/none\nHost node7\n Include {setup.home}/*.conf\n"
        f"IdentityFile {key}\n"
    )
    status, document, _ = setup.act(host="node7", **plain)
    assert status == 200, document


@pytest.mark.parametrize("where", ["config", "included"])
def test_match_exec_is_refused_and_runs_nothing(setup: Setup, where: str) -> None:
    (setup.home / "config").write_text(f"Host x\nInclude {setup.home}/included\n")
    bad = 'Port 22\nMatch originalhost nowhere !exec "touch bad"\n Port 1\n'
    with (setup.home / where).open("a") as file:
        file.write(bad)
    status, document, _ = setup.act(config_file=str(setup.home / "config"))
    assert (status, document["reason"]) == (502, "configuration")
    line = 4 if where == "config" else 2
    assert f"{setup.home / where} line {line} has Match exec" in document["error"]
    assert not list(Path.cwd().glob("bad"))


def test_known_hosts_as_openssh_has_it(setup: Setup, sshd: Sshd, key: Path) -> None:
    kind, blob = sshd.host_key.with_name("host_key.pub").read_text().split()[:2]
    other = key.with_name(f"{key.name}.pub").read_text().split()[1]
    name, known = f"[127.0.0.1]:{sshd.port}", setup.home / "known"

    def result(text: str, policy: str = "strict") -> tuple[int, str]:
        known.write_text(text)
        status, document, _ = setup.act(host_keys=policy, known_hosts_file=str(known))
        if status != 200:
            assert document["reason"] == "host_key", document
        return status, document.get("error", "")

    for hosts in (name, f"node1,{name}", "[127.0.0.*]:*", "*", f"127.0.0.1,!{name}\n{name}", "127.0.0.1"):
        text = "".join(f"{part} {kind} {blob} a comment\n" for part in hosts.split("\n"))
        assert result(text)[0] == 200, hosts
    known.write_text(f"{name} {kind} {blob}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known)], timeout=20, check=True)
    assert result(known.read_text())[0] == 200
    assert known.read_text().startswith("|1|")
    assert "is not known" in result(f"[127.0.0.*]:*,!{name} {kind} {blob}\n")[1]
    fine = f"{name} {kind} {blob}\n"
    for policy in ("strict", "accept-new"):
        assert f"revoked by {known} line 2" in result(f"{fine}@revoked * {kind} {blob}\n", policy)[1]
        assert "remove line 1 from" in result(f"[127.0.0.*]:* {kind} {other}\n", policy)[1]
        assert f"{known} line 2 is about {name}" in result(f"\n{name} {kind} {blob[:40]}\n", policy)[1]
        assert f"{known} line 1 is cut" in result(f"{name} ", policy)[1]
        assert f"{known} line 1 is about" in result(f"{name} {kind}", policy)[1]
        assert f"{known} line 1 wants a certificate" in result(f"@cert-authority * {kind} {other}\n")[1]
    # A key beside the authority's, one that is revoked and is another's, a cut line about another host.
    others = f"@cert-authority * {kind} {other}\n@revoked * {kind} {other}\nnode9 {kind} AAAA\n"
    assert result(others + fine)[0] == 200
    # A new key goes onto a line of its own.
    assert result(f"node9 {kind} {other}", "accept-new")[0] == 200
    assert known.read_text() == f"node9 {kind} {other}\n{fine}"


def test_a_key_that_others_can_read(setup: Setup) -> None:
    own = make_key(setup.home / "own")
    own.chmod(0o640)
    status, document, _ = setup.act(key_file=str(own))
    assert (status, document["reason"]) == (502, "configuration")
    assert f"others can read the key {own} (mode 640): chmod 600 it" in document["error"]


def test_one_action_a_node(setup: Setup) -> None:
    with setup.api("slow", command_timeout="60s") as api:
        first: list[int] = []
        client = api.built.app.test_client()
        thread = threading.Thread(target=lambda: first.append(client.post(SHUTDOWN).status_code))
        thread.start()
        deadline = time.monotonic() + 20
        while not any(line["event"] == "begin" for line in api.audit()):
            assert time.monotonic() < deadline
        second = api.post(RESTART)
        assert second.status_code == 409
        assert "shutdown by local" in second.json["error"]
        ended = False
        while not ended:
            assert time.monotonic() < deadline
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if process.cmdline()[-1:] == ["300"]:
                        process.kill()
                        ended = True
        thread.join(30)
        assert first
        events = [(line["event"], line.get("outcome")) for line in api.audit()]
        assert events == [("begin", None), ("conflict", None), ("end", "failure")]
        text = api.get("/metrics").text
        assert "clio_control_actions_running 0.0" in text
        assert 'clio_control_actions_total{action="restart",outcome="conflict"} 1.0' in text
        assert 'clio_control_actions_total{action="shutdown",outcome="failure"} 1.0' in text
        assert 'clio_control_action_duration_seconds_count{action="shutdown"} 1.0' in text


def test_a_restart_followed_at_once_by_a_shutdown(setup: Setup, tmp_path: Path, bin_dir: Path) -> None:
    """The node is busy for its own control API and for another, and the outcome is told afterwards."""
    go, other_home = tmp_path / "go", tmp_path / "other"
    other_home.mkdir()
    gated = bin_dir / f"gated{tmp_path.name}"
    gated.mkdir()
    body = (
        f'[ "$1" != stop ] || while [ ! -e {go} ]; do sleep 0.05; done; echo "$1" >>{tmp_path}/calls; exit 3'
    )
    (gated / "clio_run").write_text(f"#!/bin/sh\n[ $1 != --help ] || exit 0\n{body}\n")
    (gated / "clio_run").chmod(0o755)
    other = Setup(other_home, bin_dir, Path(setup.defaults["key_file"]), setup.sshd)
    other.node = setup.node
    environment = {"PATH": f"{gated}:/usr/bin:/bin", "HOME": str(setup.home)}
    with setup.api(environment=environment) as api, other.api(environment=environment) as second:
        answer = api.post(RESTART)
        assert (answer.status_code, answer.json["success"]) == (200, True)
        where = f"/api/actions/{answer.json['id']}"
        assert api.get(where).json["state"] == "running"
        refused = api.post(SHUTDOWN)
        assert refused.status_code == 409
        assert refused.json["busy"]["id"] == answer.json["id"]
        refused = second.post(SHUTDOWN)
        assert (refused.status_code, refused.json["reason"]) == (409, "busy")
        assert "node 0 is busy: a restart by" in refused.json["error"]
        go.touch()
        deadline = time.monotonic() + 30
        while (found := api.get(where).json)["state"] == "running":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert (found["state"], found["action"]) == ("failed", "restart")
        assert "clio_run ended with exit code 3" in found["message"]
        assert (tmp_path / "calls").read_text().split() == ["stop", "start"]
        assert api.audit()[-1]["outcome"] == "not_up"
        assert 'outcome="not_up"} 1.0' in api.get("/metrics").text


def test_a_node_is_free_as_soon_as_its_restart_has_failed(setup: Setup) -> None:
    """Long before the time that a runtime has for its start."""
    with setup.api("fails", start_timeout="120s") as api:
        began = time.monotonic()
        answer = api.post(RESTART)
        assert answer.status_code == 200
        where = f"/api/actions/{answer.json['id']}"
        while (found := api.get(where).json)["state"] == "running":
            assert time.monotonic() - began < 60
            time.sleep(0.05)
        assert (found["state"], "exit code 9" in found["message"]) == ("failed", True)
        # Free for the control API, and by the lock on the node.
        assert api.post(RESTART).status_code == 200
        print(f"failed and free after {time.monotonic() - began:.1f} s")


def test_audit_lines_say_who_did_what_when_and_what_came_of_it(setup: Setup) -> None:
    with setup.api() as api:
        api.post(SHUTDOWN)
        begin, end = api.audit()
    common = {
        "action": "shutdown",
        "actor": "local",
        "role": "operator",
        "node_id": 0,
        "node": setup.node,
    }
    assert common.items() <= begin.items()
    assert common.items() <= end.items()
    assert begin["id"] == end["id"]
    assert (end["outcome"], end["returncode"]) == ("success", 0)
    assert end["ts"] >= begin["ts"]
    assert begin["client"] == "127.0.0.1"


def test_a_restart_that_does_not_come_up_is_reported(setup: Setup) -> None:
    status, document, seconds = setup.act(f"{RESTART}?wait=2", "fails")
    assert (status, document["reason"]) == (504, "not_up")
    assert "pool 7 is busy" in document["stderr"]
    assert seconds < BOUNDED
    status, document, _ = setup.act(RESTART, "fails")
    assert (status, document["success"]) == (200, True)  # at once: nobody waited
