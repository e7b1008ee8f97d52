"""Input meant to harm: it is refused, and nothing of it is ever part of what a shell reads."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from clio_client.config.errors import ConfigError
from clio_client.membership import Member
from clio_client.transport.interface import NodeAddress
from clio_control_api.node_script import NodePlan, printable
from clio_control_api.settings import SshSettings
from tests.unit.control_api.support import Api, run_script

HOSTILE = [
    "'", '"', ";", "1;id", "$(id)", "`id`", "1\n2", "\r\nX-Evil: 1", "1|2", "&&", "../../etc/passwd",
    "%00", "\x00", "é", "٣", "\U0001d7db", "\u202e3", "1 OR 1=1", "{{7*7}}", "<script>", "x" * 10_000,
    "-1", "--help", "1e3", "\ud800",
]  # fmt: skip


def encoded(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:20])
def test_hostile_node_ids(api: Api, text: str) -> None:
    for path in ("/api/node/{}/workers", "/nodes/{}/restart"):
        assert api.get(path.format(encoded(text))).status_code in (400, 404)
    for action in ("shutdown", "restart"):
        answer = api.post(f"/api/topology/node/{encoded(text)}/{action}")
        assert answer.status_code in (400, 404)
        assert answer.json["error"]
        assert "X-Evil" not in answer.headers
    assert [line for line in api.audit() if line["event"] == "begin"] == []


@pytest.mark.parametrize(
    "text", [t for t in HOSTILE if t not in ("-1", "--help", "1e3")], ids=lambda t: ascii(t)[:20]
)
def test_hostile_searches(api: Api, text: str) -> None:
    answer = api.get(f"/api/topology?search={encoded(text)}")
    assert answer.status_code == 400
    assert "1-20" in answer.json["error"] or "characters" in answer.json["error"]
    prom = api.get(f"/api/v1/series?match[]={encoded('clio_node_search{search=`' + text + '`}')}")
    assert prom.status_code == 400


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:20])
def test_hostile_parameters(api: Api, text: str) -> None:
    assert api.post(f"/api/topology/node/0/restart?wait={encoded(text)}").status_code == 400
    assert api.get(f"/api/node/0/system_stats?min_event_id={encoded(text)}").status_code == 400
    assert api.get(f"/api/topology?cluster={encoded(text)}").status_code in (400, 404)
    assert api.get(f"/api/v1/label/{encoded(text)}/values").status_code in (200, 404)
    page = api.get(f"/nodes/0/restart?back={encoded(text)}")
    assert "<script>" not in page.text


def test_repeated_and_unneeded_parameters(api: Api) -> None:
    assert api.get("/api/topology?search=1&search=2").status_code == 400
    assert api.get("/nodes/0/restart?cluster=a&cluster=b").status_code == 400
    assert api.post("/api/topology/node/0/shutdown?wait=5").status_code == 400


def test_sizes(api: Api) -> None:
    assert api.get("/api/topology?x=" + "a" * 20_000).status_code == 414
    big = api.post("/api/topology/node/0/restart", data=b"x" * 9000)
    assert big.status_code == 413
    assert big.json["error"]
    chunked = api.post("/api/v1/series", headers={"Transfer-Encoding": "chunked"})
    assert chunked.status_code == 411


NAMES = ["node$(touch x)", "a;b", "a b", "a'b", "-oProxyCommand=x", "a\nb"]


def plan(hostname: str = "node0", **settings: object) -> NodePlan:
    member = Member("", 0, hostname, NodeAddress(hostname))
    return NodePlan(member, SshSettings(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_a_hostname_from_a_runtime_reaches_no_shell(name: str) -> None:
    with pytest.raises(ConfigError):
        plan(name).script("restart")


def test_settings_reach_the_shell_as_plain_text(tmp_path: Path) -> None:
    value = "$(touch bad) 'quoted' \"twice\" `touch bad` \\ {node_id} é"
    found = plan(
        environment={"VALUE": value},
        commands={"shutdown": ("sh", "-c", 'printf "%s|" "$VALUE" "$@"', "-", value)},
    )
    done = run_script(found.script("shutdown"), tmp_path)
    assert done.stdout.decode() == f"{value.replace('{node_id}', '0')}|" * 2
    assert list(tmp_path.iterdir()) == [tmp_path / ".clio"]


def test_output_is_made_printable() -> None:
    assert printable(b"\x1b[97ma\x1b[0m\x00\x07\nb\t\xff\x1b]0;x") == "a\nb\t\ufffd]0;x"
