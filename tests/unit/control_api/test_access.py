"""Who may do what: every role on every endpoint with every method, and what browsers are led to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from clio_client.config.errors import ConfigError
from clio_control_api.cli import application, settings_from
from clio_control_api.principals import Role, Scope
from clio_control_api.routes import ROUTES
from clio_control_api.settings import ACTIONS
from clio_control_api.tokens import Token, digest_of, line_of, new_token
from clio_lab.simulator.process import SimulatorProcess
from tests.ports import closed_port
from tests.unit.control_api.support import TOKENS, Api, control_api, write_tokens

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
VIEWER, OPERATOR, NOBODY = "viewer", "operator", "anyone"
UNKNOWN = "0" * 16
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
    "/api/actions/0": ("GET", VIEWER),
    "/api/openapi.json": ("GET", NOBODY),
    "/metrics": ("GET", VIEWER),
    "/-/healthy": ("GET", NOBODY),
    "/pages.css": ("GET", NOBODY),
    "/operation.js": ("GET", NOBODY),
    "/api/topology/rolling-shutdown": ("POST", OPERATOR),
    "/api/topology/rolling-restart": ("POST", OPERATOR),
    "/api/alertmanager": ("POST", OPERATOR),
    "/api/operations": ("GET", VIEWER),
    f"/api/operations/{UNKNOWN}": ("GET", VIEWER),
    f"/api/operations/{UNKNOWN}/events": ("GET", VIEWER),
    **{f"/api/operations/{UNKNOWN}/{word}": ("POST", OPERATOR) for word in ("abort", "pause", "resume")},
}
PAGES = {
    "/": ("GET", NOBODY),
    "/operations": ("GET", VIEWER),
    f"/operations/{UNKNOWN}": ("GET", VIEWER),
    f"/operations/{UNKNOWN}/events": ("GET", VIEWER),
    **{f"/operations/{UNKNOWN}/{word}": ("POST", OPERATOR) for word in ("abort", "pause", "resume")},
    "/operations/restart": ("GET POST", OPERATOR),
    "/operations/shutdown": ("GET POST", OPERATOR),
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


def succeeds(path: str, role: str) -> int:
    """What the path answers to who may ask for it."""
    if UNKNOWN in path or path.endswith("/0") or path == "/api/alertmanager":
        return 404  # no such thing, or switched off
    if "/rolling-" in path:
        return 400  # nothing says which nodes
    # An action gets as far as SSH, which nothing listens for.
    return 502 if role == OPERATOR and path.startswith("/api/") else 200


def expected(path: str, methods: str, role: str, method: str, caller: str) -> set[int]:
    allowed = {*methods.split(), *({"HEAD"} if "GET" in methods else set())}
    if method == "OPTIONS":
        return {400}  # no preflight headers
    if method not in allowed:
        return {405}
    if role == NOBODY or role in CALLERS[caller][1]:
        return {succeeds(path, role)}
    return {403} if caller == VIEWER else {401}


@pytest.fixture
def strict(tmp_path: Path, simulator: SimulatorProcess, hosts: str) -> Api:
    limits = {"failed_logins_per_minute": 100_000, "actions_per_minute": 100_000}
    with (
        closed_port() as port,
        control_api(tmp_path, hosts, tokens=True, ssh={"port": port}, limits=limits) as built,
    ):
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
            if answer.status_code not in expected(path, methods, role, method, caller):
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
            elif role == NOBODY or (caller != NOBODY and role in (VIEWER, caller)):
                assert answer.status_code == succeeds(path, role), (path, method)
            else:
                assert answer.status_code == (302 if caller == NOBODY else 403), (path, method)


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


# --- without a tokens file ----------------------------------------------------------------------------


def test_by_default_actions_need_the_token_made_at_the_first_start(
    tmp_path: Path, simulator: SimulatorProcess, hosts: str
) -> None:
    with control_api(tmp_path, hosts, ssh={"port": 1}) as api:
        made = api.built.made_token
        assert made == api.built.services.settings.state_dir / "token"
        assert made.stat().st_mode & 0o777 == 0o600
        assert (made.parent / "tokens").stat().st_mode & 0o777 == 0o600
        assert api.get("/api/topology").status_code == 200
        assert api.get("/metrics").status_code == 200
        for action in ACTIONS:
            path = f"/api/topology/node/0/{action}"
            refused = api.post(path, "")
            assert refused.status_code == 401
            assert "state directory" in refused.json["error"]
            assert refused.headers["WWW-Authenticate"].startswith("Bearer")
            assert api.post(path, new_token()).status_code == 401
            assert api.get(f"/nodes/0/{action}", "").status_code == 302
            assert api.post(f"/nodes/0/{action}", "").status_code == 302
            assert api.post(path, api.own_token).status_code == 502
        assert {line.get("actor") for line in api.audit() if line["event"] == "begin"} == {"operator"}
        # A wrong token is refused for reads too: who sends one means it.
        assert api.get("/api/topology", new_token()).status_code == 401
        # In a browser: log in with it, then confirm.
        token = api.own_token
        assert token is not None
        assert log_in(api, token, "/nodes/0/shutdown").headers["Location"] == "/nodes/0/shutdown"
        secret = form_secret(api.get("/nodes/0/shutdown", ""))
        assert api.post("/nodes/0/shutdown", "", data={"csrf": secret}).status_code == 303
    with control_api(tmp_path, hosts) as again:  # the next start makes none
        assert again.built.made_token is None
        assert again.get("/nodes/0/restart", token).status_code == 200


@pytest.mark.parametrize(
    "settings", [{"external_url": "https://c.example"}, {"proxy_hops": 1}, {"auth": "all"}], ids=str
)
def test_reads_are_closed_behind_a_proxy_and_where_it_is_said(
    tmp_path: Path, simulator: SimulatorProcess, hosts: str, settings: dict[str, object]
) -> None:
    with control_api(tmp_path, hosts, **settings) as api:
        assert api.get("/api/topology").status_code == 401
        assert api.get("/metrics").status_code == 401
        assert api.get("/-/healthy").status_code == 200
        assert api.get("/api/topology", api.own_token).status_code == 200


PROXIED = [
    {"X-Forwarded-For": "127.0.0.1"}, {"X-Forwarded-Host": "localhost"}, {"Forwarded": "for=127.0.0.1"},
    {"Via": "1.1 proxy"}, {"X-Real-IP": "127.0.0.1"},
]  # fmt: skip


@pytest.mark.parametrize("headers", PROXIED, ids=str)
def test_what_a_proxy_passes_on_does_not_act(
    tmp_path: Path, simulator: SimulatorProcess, hosts: str, headers: dict[str, str]
) -> None:
    with control_api(tmp_path, hosts, auth="none", ssh={"port": 1}) as api:
        for method, path in (
            ("GET", "/api/topology"),
            ("POST", "/api/topology/node/0/shutdown"),
            ("GET", "/nodes/0/shutdown"),
        ):
            refused = api.open(method, path, headers=headers)
            assert refused.status_code == 403
            assert "through a proxy" in refused.text
        assert api.post("/api/topology/node/0/shutdown").status_code == 502


def test_the_old_openness_has_to_be_asked_for(
    tmp_path: Path, simulator: SimulatorProcess, hosts: str
) -> None:
    with control_api(tmp_path, hosts, auth="none", ssh={"port": 1}) as api:
        assert any("every user" in warning for warning in api.built.warnings)
        assert not (api.built.services.settings.state_dir / "token").exists()
        page = api.get("/nodes/0/shutdown")
        assert page.status_code == 200
        assert api.post("/nodes/0/shutdown", data={"csrf": "x"}).status_code == 403
        assert api.post("/nodes/0/shutdown", data={"csrf": form_secret(page)}).status_code == 303
        assert api.get("/api/topology", new_token()).status_code == 200
        assert api.post("/api/topology/node/0/restart", headers=HOST).status_code == 502
        assert api.post("/api/topology/node/0/restart", headers={"Host": "evil.example"}).status_code == 403
        # There is nothing to log in to, and that is said.
        assert "No log-in needed" in api.get("/login").text
        answer = api.post("/login", data={"token": new_token()})
        assert (answer.status_code, "No log-in needed" in answer.text) == (200, True)
        assert api.post("/logout").status_code == 403


@pytest.mark.parametrize("web", [None, "http_server_config: {headers: {X-Frame-Options: deny}}\n"])
def test_starts_on_any_address_with_tokens(tmp_path: Path, web: str | None) -> None:
    """A web configuration that has headers only is no TLS."""
    flags = {"host": "0.0.0.0", "port": "0", "tokens_file": write_tokens(tmp_path / "tokens")}
    if web is not None:
        (tmp_path / "web.yml").write_text(web)
        flags["web_config_file"] = tmp_path / "web.yml"
    settings = settings_from(flags, {}, tmp_path)
    with application(settings, {}, tmp_path) as built:
        assert any("clear text" in warning for warning in built.warnings)
        assert built.made_token is None
        assert not (tmp_path / ".local/state/clio-control-api/tokens").exists()


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


@pytest.mark.parametrize("host", ["[::", "[x]", "a:99999", "a:b", "a b", "a/b", "u@localhost", "localhost,x"])
def test_a_host_that_is_none_is_a_bad_request(api: Api, guarded: Api, host: str) -> None:
    for built, token in ((api, None), (guarded, TOKENS["anna"][1])):
        answer = built.get("/api/topology", token, headers={"Host": host})
        assert answer.status_code == 400, answer.text
        assert answer.json["error"]


@pytest.mark.parametrize("host", ["[::1]:5000", "[::1]", "localhost:", "LOCALHOST:1"])
def test_a_host_in_any_form_is_answered_to(guarded: Api, host: str) -> None:
    same = {"Host": host, "Origin": f"http://{host.lower().rstrip(':')}", "Sec-Fetch-Site": "same-origin"}
    assert guarded.get("/api/topology", TOKENS["vera"][1], headers=same).status_code == 200


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


def _emptied(path: Path) -> None:
    path.write_text("")


def _broken(path: Path) -> None:
    path.write_text("broken\n")


def _writable(path: Path) -> None:
    path.chmod(0o622)


def _replaced(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [_emptied, _broken, _writable, _replaced, Path.unlink])
def test_a_tokens_file_that_cannot_be_used_lets_nobody_in(
    guarded: Api, spoil: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    log_in(guarded, TOKENS["anna"][1])
    anna, path = TOKENS["anna"][1], guarded.home / "tokens"
    assert guarded.get("/nodes/0/restart").status_code == 200
    spoil(path)
    for _ in range(2):
        refused = guarded.get("/api/topology", anna)
        assert refused.status_code == 401
        assert "log says why" in refused.json["error"]
        assert guarded.get("/nodes/0/restart").status_code == 302
    metrics = guarded.built.services.metrics.registry
    assert metrics.get_sample_value("clio_control_tokens_file_usable") == 0
    assert metrics.get_sample_value("clio_control_tokens", {"state": "valid"}) == 0
    assert metrics.get_sample_value("clio_control_refused_tokens_total", {"reason": "unusable_file"}) == 2
    assert capsys.readouterr().out.count("no token counts until it can") == 1
    # A file that was only out of the way for a moment does not end a browser's log-in.
    if path.is_dir():
        path.rmdir()
    write_tokens(path)
    assert guarded.get("/api/topology", anna).status_code == 200
    assert guarded.get("/nodes/0/restart").status_code == 200
    assert metrics.get_sample_value("clio_control_tokens_file_usable") == 1


def test_good_lines_hold_beside_bad_ones(guarded: Api, capsys: pytest.CaptureFixture[str]) -> None:
    good = new_token()
    with (guarded.home / "tokens").open("a") as stream:
        stream.write(f"oskar:operator:clio_in_clear\n{line_of('nora', Role.VIEWER, good)}\n")
    assert guarded.get("/api/topology", good).status_code == 200
    assert guarded.get("/api/topology", TOKENS["vera"][1]).status_code == 200
    out = capsys.readouterr().out
    assert "tokens:4: not a line" in out
    assert "clio_in_clear" not in out
    metrics = guarded.built.services.metrics.registry
    assert metrics.get_sample_value("clio_control_tokens_bad_lines") == 1
    assert metrics.get_sample_value("clio_control_tokens", {"state": "valid"}) == 3


def test_an_expired_token_and_its_log_in_end(guarded: Api) -> None:
    lasting, short = new_token(), new_token()
    path = guarded.home / "tokens"

    def write(expires: float) -> None:
        tokens = [
            Token("anna", Role.OPERATOR, digest_of(short), expires=expires),
            Token("vera", Role.VIEWER, digest_of(lasting)),
        ]
        path.write_text("".join(token.line + "\n" for token in tokens))

    write(time.time() + 3600)
    log_in(guarded, short)
    assert guarded.get("/nodes/0/restart").status_code == 200
    write(time.time() - 1)
    refused = guarded.get("/api/topology", short)
    assert (refused.status_code, refused.json["error"]) == (401, "the token has expired")
    assert guarded.get("/nodes/0/restart").status_code == 302
    assert guarded.get("/api/topology", lasting).status_code == 200
    metrics = guarded.built.services.metrics.registry
    assert metrics.get_sample_value("clio_control_tokens", {"state": "expired"}) == 1


def test_a_scope_limits_actions_not_reads(tmp_path: Path, simulator: SimulatorProcess, hosts: str) -> None:
    token = new_token()
    scoped = Token("anna", Role.OPERATOR, digest_of(token), Scope(nodes=("1-2",)))
    with control_api(tmp_path, hosts, tokens=True, ssh={"port": 1}) as api:
        (api.home / "tokens").write_text(scoped.line + "\n")
        assert len(api.get("/api/topology", token).json["nodes"]) == 5
        for action in ACTIONS:
            refused = api.post(f"/api/topology/node/3/{action}", token)
            assert refused.status_code == 403
            assert "nodes=1-2" in refused.json["error"]
            assert api.get(f"/nodes/3/{action}", token).status_code == 403
            assert api.post(f"/nodes/3/{action}", token).status_code == 403
        assert [(line["event"], line["node_id"]) for line in api.audit()] == [("refused", "3")] * 4
        assert api.post("/api/topology/node/2/shutdown", token).status_code == 502
        assert api.get("/nodes/2/shutdown", token).status_code == 200


def test_a_revoked_token_ends_its_log_in(guarded: Api) -> None:
    log_in(guarded, TOKENS["anna"][1])
    assert guarded.get("/nodes/0/restart").status_code == 200
    write_tokens(guarded.home / "tokens", {"vera": TOKENS["vera"]})
    assert guarded.get("/nodes/0/restart").status_code == 302


def form_secret(page: TestResponse) -> str:
    return page.text.split('name="csrf" value="')[1].split('"')[0]


def log_in(api: Api, token: str, next_page: str = "") -> TestResponse:
    return api.post(
        "/login", data={"csrf": form_secret(api.get("/login")), "token": token, "next": next_page}
    )


def test_the_cookie_is_for_this_site_and_for_pages_only(guarded: Api) -> None:
    answer = log_in(guarded, TOKENS["anna"][1], "/nodes/1/restart")
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/nodes/1/restart"
    cookie = answer.headers["Set-Cookie"]
    assert "SameSite=Strict" in cookie
    assert "HttpOnly" in cookie
    assert "Secure" not in cookie
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


def test_logging_out_ends_the_log_in_wherever_its_cookie_is(guarded: Api) -> None:
    log_in(guarded, TOKENS["anna"][1])
    cookie = guarded.client.get_cookie("clio_control_session")
    assert cookie is not None
    page = guarded.get("/nodes/0/restart")
    for wrong in ("", "x", form_secret(page)):
        data = {"csrf": wrong}
        if wrong != form_secret(page):
            assert guarded.post("/logout", data=data).status_code == 403
    way_out = page.text.split('action="/logout"')[1].split('value="')[1].split('"')[0]
    assert guarded.post("/logout", data={"csrf": way_out}).status_code == 303
    assert guarded.client.get_cookie("clio_control_session") is None
    guarded.client.set_cookie("clio_control_session", cookie.value)
    assert guarded.get("/nodes/0/restart").status_code == 302
    assert guarded.post("/nodes/0/restart", data={"csrf": form_secret(page)}).status_code == 302


def test_logging_in_again_ends_the_log_in_before(guarded: Api) -> None:
    log_in(guarded, TOKENS["anna"][1])
    first = guarded.client.get_cookie("clio_control_session")
    assert first is not None
    forms = guarded.get("/nodes/0/restart")
    assert "Logged in" in guarded.get("/login").text
    way_in = guarded.built.app.test_client()
    page = way_in.get("/login")
    way_in.set_cookie("clio_control_session", first.value)
    # The form of before the log-in does not count for it: it belongs to somebody not logged in.
    form = {"csrf": form_secret(page), "token": TOKENS["anna"][1]}
    assert way_in.post("/login", data=form).status_code == 403
    assert guarded.get("/nodes/0/restart").status_code == 200
    assert form_secret(forms) != form_secret(page)


def test_a_confirmation_counts_once_and_for_what_its_page_showed(
    tmp_path: Path, simulator: SimulatorProcess, hosts: str
) -> None:
    with control_api(tmp_path, hosts, tokens=True, ssh={"port": 1}) as api:
        log_in(api, TOKENS["anna"][1])
        secret = form_secret(api.get("/nodes/0/shutdown"))
        for path in ("/nodes/1/shutdown", "/nodes/0/restart", "/nodes/0/shutdown?hostname=127.96.0.1"):
            assert api.post(path, data={"csrf": secret}).status_code == 403
        assert [line for line in api.audit() if line["event"] == "begin"] == []
        assert api.post("/nodes/0/shutdown", data={"csrf": secret}).status_code == 303
        again = api.post("/nodes/0/shutdown", data={"csrf": secret})
        assert again.status_code == 403
        assert "sent already" in again.text
        # Nor does one of another log-in.
        other = api.built.app.test_client()
        secret = form_secret(api.get("/nodes/1/shutdown"))
        with api.built.app.app_context():
            login = {"csrf": form_secret(other.get("/login")), "token": TOKENS["anna"][1]}
        assert other.post("/login", data=login).status_code == 303
        assert other.post("/nodes/1/shutdown", data={"csrf": secret}).status_code == 403


def test_a_stolen_cookie_is_of_no_use_from_elsewhere(guarded: Api) -> None:
    log_in(guarded, TOKENS["anna"][1])
    elsewhere = {"environ_base": {"REMOTE_ADDR": "10.0.0.9"}}
    assert guarded.get("/nodes/0/restart").status_code == 200
    assert guarded.get("/nodes/0/restart", **elsewhere).status_code == 302
    assert guarded.get("/nodes/0/restart").status_code == 200  # and its owner is not logged out by that


def test_cookies_under_tls_are_for_this_host_alone(
    tmp_path: Path, simulator: SimulatorProcess, hosts: str
) -> None:
    https = {"X-Forwarded-For": "10.0.0.7", "X-Forwarded-Proto": "https"}
    with control_api(tmp_path, hosts, tokens=True, proxy_hops=1) as api:
        page = api.get("/login", headers=https)
        names = [cookie.split("=")[0] for cookie in page.headers.getlist("Set-Cookie")]
        assert names == ["__Host-clio_control_form"]
        visitor = page.headers["Set-Cookie"]
        assert {"Secure", "HttpOnly", "Path=/", "SameSite=Strict"} <= {p.strip() for p in visitor.split(";")}
        assert "Domain" not in visitor
        form = {"csrf": form_secret(page), "token": TOKENS["anna"][1]}
        headers = {**https, "Cookie": visitor.split(";")[0]}
        answer = api.built.app.test_client(use_cookies=False).post("/login", data=form, headers=headers)
        assert answer.status_code == 303
        session = answer.headers["Set-Cookie"]
        assert session.startswith("__Host-clio_control_session=")
        assert "Secure" in session
        # A cookie without the prefix, which any site of the domain can set, is not looked at.
        plain = session.split(";")[0].removeprefix("__Host-")
        client = api.built.app.test_client(use_cookies=False)
        assert client.get("/nodes/0/restart", headers={**https, "Cookie": plain}).status_code == 302
        whole = {**https, "Cookie": session.split(";")[0]}
        assert client.get("/nodes/0/restart", headers=whole).status_code == 200
        # Without TLS, or said by somebody who is no proxy, it is an ordinary one.
        assert "__Host-" not in api.get("/login").headers["Set-Cookie"]


def test_wrong_tokens_lock_nobody_else_out(tmp_path: Path, simulator: SimulatorProcess, hosts: str) -> None:
    with control_api(tmp_path, hosts, tokens=True, limits={"failed_logins_per_minute": 2}) as api:
        assert [api.get("/api/topology", new_token()).status_code for _ in range(4)] == [401, 401, 429, 429]
        assert api.get("/api/topology", TOKENS["vera"][1]).status_code == 200
        assert log_in(api, TOKENS["anna"][1]).status_code == 303
        assert api.get("/nodes/0/restart").status_code == 200
        for _ in range(5):  # those that count are not counted
            assert api.get("/api/topology", TOKENS["vera"][1]).status_code == 200
        metrics = api.built.services.metrics.registry
        assert metrics.get_sample_value("clio_control_refused_tokens_total", {"reason": "unknown"}) == 4


def test_refused_tokens_are_logged_but_not_shown(guarded: Api, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = new_token()
    guarded.get("/api/topology", wrong)
    out = capsys.readouterr().out
    assert "a token was refused" in out
    assert "127.0.0.1" in out
    assert wrong not in out


def test_wrong_tokens_are_limited(tmp_path: Path, simulator: SimulatorProcess, hosts: str) -> None:
    with control_api(tmp_path, hosts, tokens=True, limits={"failed_logins_per_minute": 3}) as api:
        statuses = [api.get("/api/topology", new_token()).status_code for _ in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        limited = api.get("/api/topology", new_token())
        assert 1 <= int(limited.headers["Retry-After"]) <= 20  # one more each 20 seconds
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


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/topology/node/2/shutdown?wait=5", None, 400),
        ("/api/topology/node/2/restart?wait=x", None, 400),
        ("/api/topology/node/2/restart?reason=a%00b", None, 400),
        ("/api/topology/node/2/restart?reason=" + "x" * 2000, None, 400),
        ("/api/topology/node/2/restart?hostname=another", None, 409),
        ("/api/topology/node/2/restart", b"x" * 9000, 413),
        ("/api/topology/rolling-restart", b"{", 400),
        ("/api/topology/rolling-restart", b'{"nodes": "77"}', 400),
        ("/api/operations/0000000000000000/abort", None, 404),
        ("/nodes/2/restart", b"csrf=1", 403),
    ],
)
def test_however_an_action_is_refused_it_is_in_the_audit_log(
    guarded: Api, path: str, body: bytes | None, status: int
) -> None:
    headers = {
        "Content-Type": "application/x-www-form-urlencoded" if "nodes/2" in path else "application/json"
    }
    answer = guarded.post(path, TOKENS["anna"][1], data=body, headers=headers)
    assert answer.status_code == status, answer.text
    (line,) = guarded.audit()
    assert (line["event"], line["status"], line["client"]) == ("refused", status, "127.0.0.1")
    assert line["path"] == path.partition("?")[0]
    assert line.get("actor") == (None if status == 413 else "anna")  # too large to ask who


def test_actions_on_what_is_not_there_are_in_the_audit_log(guarded: Api) -> None:
    assert guarded.post("/api/topology/node/4711/shutdown", TOKENS["anna"][1]).status_code == 404
    assert guarded.get("/api/node/4711/workers", TOKENS["anna"][1]).status_code == 404
    (line,) = guarded.audit()
    assert (line["event"], line["status"], line["node_id"], line["actor"]) == ("refused", 404, "4711", "anna")


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


def test_the_confirm_page_shows_what_runs_with_its_placeholders_filled(
    tmp_path: Path, simulator: SimulatorProcess, hosts: str
) -> None:
    port = hosts.split()[0].rpartition(":")[2]
    commands = {"shutdown": ["systemctl", "stop", "clio@{node_id}", "{hostname} {port}"]}
    ssh = {"commands": commands, "program": "/opt/n{node_id}/clio_run"}
    with control_api(tmp_path, hosts, ssh=ssh) as api:
        page = unescape(api.get("/nodes/2/shutdown").text)
        assert f"systemctl stop clio@2 '127.96.0.3 {port}'" in page
        assert "/opt/n2/clio_run stop, then /opt/n2/clio_run start" in unescape(
            api.get("/nodes/2/restart").text
        )
