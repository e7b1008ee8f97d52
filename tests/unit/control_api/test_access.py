"""Who may do what: every role on every endpoint with every method, and what browsers are led to do."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from clio_client.config.errors import ConfigError
from clio_control_api.cli import application, settings_from
from clio_control_api.routes import ROUTES
from clio_control_api.tokens import Role, new_token
from clio_lab.simulator.process import SimulatorProcess
from tests.unit.control_api.support import TOKENS, Api, control_api, write_tokens

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
VIEWER, OPERATOR, NOBODY = "viewer", "operator", "anyone"
ENDPOINTS = {
    "/api/topology": ("GET", VIEWER),
    "/api/system": ("GET", VIEWER),
    "/api/workers": ("GET", VIEWER),
    "/api/pools": ("GET", VIEWER),
    "/api/config": ("GET", VIEWER),
    "/api/node/0/workers": ("GET", VIEWER),
    "/api/node/0/system_stats": ("GET", VIEWER),
    "/api/node/0/bdev_stats": ("GET", VIEWER),
    "/api/node/0/container_stats": ("GET", VIEWER),
    "/api/topology/node/0/shutdown": ("POST", OPERATOR),
    "/api/topology/node/0/restart": ("POST", OPERATOR),
    "/api/v1/series": ("GET POST", VIEWER),
    "/api/v1/query": ("GET POST", VIEWER),
    "/api/v1/label/node_id/values": ("GET", VIEWER),
    "/api/v1/labels": ("GET POST", VIEWER),
    "/api/v1/status/buildinfo": ("GET", VIEWER),
    "/api/openapi.json": ("GET", NOBODY),
    "/metrics": ("GET", VIEWER),
    "/-/healthy": ("GET", NOBODY),
    "/pages.css": ("GET", NOBODY),
}
PAGES = {
    "/nodes/0/restart": ("GET POST", OPERATOR),
    "/nodes/0/shutdown": ("GET POST", OPERATOR),
    "/nodes/0/restart/0": ("GET", OPERATOR),
    "/nodes/0/shutdown/0": ("GET", OPERATOR),
    "/login": ("GET POST", NOBODY),
    "/logout": ("POST", NOBODY),
}
QUERIES = {"/api/v1/series": {"match[]": "clio_node_search"}, "/api/v1/query": {"query": "1+1"}}
CALLERS = {
    NOBODY: (None, ()),
    "a stranger": (new_token(), ()),
    VIEWER: (TOKENS["vera"][1], (VIEWER,)),
    OPERATOR: (TOKENS["anna"][1], (VIEWER, OPERATOR)),
}


def expected(methods: str, role: str, method: str, caller: str) -> set[int]:
    allowed = {*methods.split(), *({"HEAD"} if "GET" in methods else set())}
    if method == "OPTIONS":
        return {400}  # no preflight headers
    if method not in allowed:
        return {405}
    if role == NOBODY or role in CALLERS[caller][1]:
        # An action gets as far as SSH, which nothing listens for.
        return {200} if role != OPERATOR else {502}
    return {403} if caller == VIEWER else {401}


@pytest.fixture
def strict(tmp_path: Path, simulator: SimulatorProcess, hosts: str) -> Api:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    limits = {"failed_logins_per_minute": 100_000, "actions_per_minute": 100_000}
    with control_api(tmp_path, hosts, tokens=True, ssh={"port": free}, limits=limits) as built:
        yield built


def test_the_table_is_complete(strict: Api) -> None:
    adapter = strict.built.app.url_map.bind("localhost")
    covered = set()
    for path, (methods, _) in {**ENDPOINTS, **PAGES}.items():
        covered |= {adapter.match(path, method)[0] for method in methods.split()}
    assert covered == {route.endpoint for route in ROUTES}


@pytest.mark.parametrize("caller", CALLERS)
def test_role_by_endpoint_by_method(strict: Api, caller: str) -> None:
    token, _ = CALLERS[caller]
    wrong = []
    for path, (methods, role) in ENDPOINTS.items():
        for method in METHODS:
            answer = strict.open(method, path, token, query_string=QUERIES.get(path))
            if answer.status_code not in expected(methods, role, method, caller):
                wrong.append((path, method, answer.status_code, answer.text[:100]))
            if answer.status_code >= 400 and method != "HEAD":
                assert answer.json["error"], (path, method)
            if answer.status_code == 401:
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            if answer.status_code == 405:
                assert answer.headers["Allow"]
    assert wrong == []


@pytest.mark.parametrize("caller", CALLERS)
def test_pages_by_role(strict: Api, caller: str) -> None:
    token, _ = CALLERS[caller]
    for path, (methods, role) in PAGES.items():
        for method in METHODS:
            answer = strict.open(method, path, token)
            if (
                method == "OPTIONS"
                or method not in {*methods.split(), "HEAD"}
                or (method == "HEAD" and "GET" not in methods)
            ):
                assert answer.status_code in (400, 405), (path, method)
            elif token is not None and caller == "a stranger":
                assert answer.status_code == 401, (path, method)
            elif method == "POST":
                # Without the form's secret nobody gets through; without a log-in one is asked for.
                wanted = 302 if caller == NOBODY and role == OPERATOR else 403
                assert answer.status_code == wanted, (path, method)
            elif role == OPERATOR:
                found = {NOBODY: 302, VIEWER: 403, OPERATOR: 404 if path.endswith("/0") else 200}
                assert answer.status_code == found[caller], (path, method)
            else:
                assert answer.status_code == 200, (path, method)


def test_security_headers_everywhere(strict: Api) -> None:
    for path in ("/api/topology", "/nodes/0/restart", "/login", "/nowhere", "/-/healthy"):
        headers = strict.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert "Set-Cookie" not in strict.get("/api/topology").headers


# --- refusing to start open ---------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "", "example.org"])
def test_refuses_to_start_open(tmp_path: Path, host: str) -> None:
    settings = settings_from({"host": host, "port": "0"}, {}, tmp_path)
    with pytest.raises(ConfigError, match="token"), application(settings, {}, tmp_path):
        pass


def test_starts_on_any_address_with_tokens(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens")
    settings = settings_from({"host": "0.0.0.0", "port": "0", "tokens_file": tokens}, {}, tmp_path)
    with application(settings, {}, tmp_path) as built:
        assert any("clear text" in warning for warning in built.warnings)


def test_basic_auth_of_the_web_configuration_is_refused(tmp_path: Path) -> None:
    web = tmp_path / "web.yml"
    web.write_text(f"basic_auth_users: {{a: {'$2y$10$' + 'a' * 53}}}")
    settings = settings_from({"port": "0", "web_config_file": web}, {}, tmp_path)
    with pytest.raises(ConfigError, match="basic_auth_users"), application(settings, {}, tmp_path):
        pass


# --- browsers -------------------------------------------------------------------------------------------

HOST = {"Host": "localhost:5000"}
EVIL = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "https://localhost:5000"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
]
FINE = [
    {},
    {"Origin": "http://localhost:5000"},
    {"Origin": "http://localhost:5000", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
]


@pytest.mark.parametrize("headers", EVIL)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/topology"), ("POST", "/api/topology/node/0/shutdown"), ("POST", "/login")],
)
def test_other_sites_are_refused(api: Api, headers: dict[str, str], method: str, path: str) -> None:
    answer = api.open(method, path, headers={**HOST, **headers})
    assert answer.status_code == 403
    assert "cross-site" in answer.text


@pytest.mark.parametrize("headers", FINE)
def test_own_pages_and_programs_are_served(api: Api, headers: dict[str, str]) -> None:
    assert api.get("/api/topology", headers={**HOST, **headers}).status_code == 200


def test_a_link_on_another_site_may_open_a_page_but_not_act(api: Api) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert api.get("/nodes/0/restart", headers={**HOST, **link}).status_code == 200
    assert api.post("/nodes/0/restart", headers={**HOST, **link}).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:5000", "127.0.0.1.evil.example", "", "[::"])
def test_dns_rebinding_is_refused(api: Api, host: str) -> None:
    answer = api.get("/api/topology", headers={"Host": host})
    assert answer.status_code in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.0.0.1:1", "[::1]:5000", "127.3.2.1"])
def test_names_of_this_machine_are_answered_to(api: Api, host: str) -> None:
    assert api.get("/api/topology", headers={"Host": host}).status_code == 200


def test_cors_for_configured_origins_only(tmp_path: Path, simulator: SimulatorProcess, hosts: str) -> None:
    grafana, token = "https://grafana.example", TOKENS["vera"][1]
    with control_api(tmp_path, hosts, tokens=True, allowed_origins=[grafana]) as api:

        def preflight(origin: str, path: str = "/api/topology") -> TestResponse:
            return api.open(
                "OPTIONS", path, headers={"Origin": origin, "Access-Control-Request-Method": "GET"}
            )

        allowed = preflight(grafana)
        assert allowed.status_code == 204
        assert allowed.headers["Access-Control-Allow-Origin"] == grafana
        assert "Authorization" in allowed.headers["Access-Control-Allow-Headers"]
        assert "Origin" in allowed.headers["Vary"]
        assert "Access-Control-Allow-Credentials" not in allowed.headers
        for origin in ("https://evil.example", "https://grafana.example.evil", "null"):
            refused = preflight(origin)
            assert refused.status_code == 403
            assert "Access-Control-Allow-Origin" not in refused.headers
        assert preflight(grafana, "/nodes/0/restart").status_code == 403
        read = api.get("/api/topology", token, headers={"Origin": grafana, "Sec-Fetch-Site": "cross-site"})
        assert read.status_code == 200
        assert read.headers["Access-Control-Allow-Origin"] == grafana
        # The origin alone gives no rights.
        assert api.get("/api/topology", headers={"Origin": grafana}).status_code == 401


# --- tokens while running -----------------------------------------------------------------------------


def test_tokens_change_without_a_restart(guarded: Api) -> None:
    name, fresh = "nora", new_token()
    old = TOKENS["vera"][1]
    assert guarded.get("/api/topology", old).status_code == 200
    write_tokens(guarded.home / "tokens", {name: (Role.VIEWER, fresh)})
    assert guarded.get("/api/topology", fresh).status_code == 200
    assert guarded.get("/api/topology", old).status_code == 401
    (guarded.home / "tokens").write_text("broken\n")
    assert guarded.get("/api/topology", fresh).status_code == 200
    (guarded.home / "tokens").unlink()
    assert guarded.get("/api/topology", fresh).status_code == 200
    assert guarded.get("/api/topology").status_code == 401


def test_a_revoked_token_ends_its_log_in(guarded: Api) -> None:
    log_in(guarded, TOKENS["anna"][1])
    assert guarded.get("/nodes/0/restart").status_code == 200
    write_tokens(guarded.home / "tokens", {"vera": TOKENS["vera"]})
    assert guarded.get("/nodes/0/restart").status_code == 302


def log_in(api: Api, token: str, next_page: str = "") -> TestResponse:
    page = api.get("/login").text
    secret = page.split('name="csrf" value="')[1].split('"')[0]
    return api.post("/login", data={"csrf": secret, "token": token, "next": next_page})


def test_the_cookie_is_for_this_site_and_for_pages_only(guarded: Api) -> None:
    answer = log_in(guarded, TOKENS["anna"][1], "/nodes/1/restart")
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/nodes/1/restart"
    cookie = answer.headers["Set-Cookie"]
    assert "SameSite=Strict" in cookie
    assert "HttpOnly" in cookie
    assert TOKENS["anna"][1] not in cookie
    assert guarded.get("/api/topology").status_code == 401
    assert guarded.post("/api/topology/node/0/shutdown").status_code == 401


@pytest.mark.parametrize(
    "target",
    ["https://evil.example", "//evil.example", "/\\evil.example", "/nodes/1/restart\r\nX: y", "/metrics"],
)
def test_log_in_leads_nowhere_else(guarded: Api, target: str) -> None:
    assert log_in(guarded, TOKENS["anna"][1], target).headers["Location"] == "/login"


def test_a_strict_cookie_kept_back_is_asked_for_again(guarded: Api) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    page = guarded.get("/nodes/1/restart?back=https%3A%2F%2Fg.example%2Fd", headers=link)
    assert page.status_code == 200
    assert 'http-equiv="refresh"' in page.text
    assert "url=/nodes/1/restart?back=https%3A%2F%2Fg.example%2Fd" in page.text


def test_wrong_tokens_are_limited(tmp_path: Path, simulator: SimulatorProcess, hosts: str) -> None:
    with control_api(tmp_path, hosts, tokens=True, limits={"failed_logins_per_minute": 3}) as api:
        statuses = [api.get("/api/topology", new_token()).status_code for _ in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        limited = api.get("/api/topology", new_token())
        assert int(limited.headers["Retry-After"]) > 0
        assert limited.json["error"]


def test_reads_and_actions_are_limited(tmp_path: Path, simulator: SimulatorProcess, hosts: str) -> None:
    limits = {"reads_per_second": 5, "actions_per_minute": 2}
    with control_api(tmp_path, hosts, limits=limits) as api:
        assert 429 in [api.get("/-/healthy").status_code for _ in range(40)]
    with control_api(tmp_path, hosts, limits={"actions_per_minute": 2}, ssh={"port": 1}) as api:
        statuses = [api.post("/api/topology/node/0/shutdown").status_code for _ in range(3)]
        assert statuses == [502, 502, 429]
        assert [line["event"] for line in api.audit()] == ["begin", "end", "begin", "end", "refused"]


def test_refused_actions_are_in_the_audit_log(guarded: Api) -> None:
    guarded.post("/api/topology/node/2/shutdown")
    guarded.post("/api/topology/node/2/shutdown", TOKENS["vera"][1])
    guarded.get("/api/topology")
    lines = guarded.audit()
    assert [(line["event"], line["status"], line.get("actor")) for line in lines] == [
        ("refused", 401, None),
        ("refused", 403, "vera"),
    ]
    assert lines[1]["node_id"] == "2"
    assert all("clio_" not in str(line) for line in lines)


def test_nothing_is_done_without_an_audit_log(
    tmp_path: Path, simulator: SimulatorProcess, hosts: str
) -> None:
    with control_api(tmp_path, hosts, audit_log=str(tmp_path)) as api:
        answer = api.post("/api/topology/node/0/shutdown")
        assert answer.status_code == 503
        assert "audit log" in answer.json["error"]
        assert api.post("/api/topology/node/0/shutdown").status_code == 503  # and the node is not left busy


@pytest.mark.parametrize(
    ("back", "found"),
    [
        ("", "https://g.example/d/home"),
        ("/d/nodes?var-node=1", "https://g.example/d/nodes?var-node=1"),
        ("https://g.example/d/x", "https://g.example/d/x"),
        ("https://g.example:444/d/x", "https://g.example/d/home"),
        ("http://g.example/d/x", "https://g.example/d/home"),
        ("https://g.example@evil.example/", "https://g.example/d/home"),
        ("//evil.example/x", "https://g.example/d/home"),
        ("javascript:alert(1)", "https://g.example/d/home"),
        ("https://[", "https://g.example/d/home"),
    ],
)
def test_the_way_back_leads_to_the_dashboard_only(
    tmp_path: Path, simulator: SimulatorProcess, hosts: str, back: str, found: str
) -> None:
    with control_api(tmp_path, hosts, dashboard_url="https://g.example/d/home") as api:
        page = api.get("/nodes/0/restart", query_string={"back": back}).text
    assert f'class="button" href="{found}"' in page
