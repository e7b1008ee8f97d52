from __future__ import annotations

import gzip
import io
import json
import logging
import socket
import tracemalloc
from typing import Any

import pytest
import yaml
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from werkzeug.test import TestResponse

from clio_client.config.errors import ConfigError
from clio_exporter.http.app import MOST_ROWS, RUNBOOKS, ResponseAborted, create_app
from clio_exporter.http.negotiate import TEXT_CONTENT_TYPE
from clio_exporter.http.runbooks import sections
from clio_exporter.http.service import ClusterSummary, NodeState
from clio_exporter.kit import prometheus, rules
from clio_exporter.telemetry import Telemetry
from clio_web import logs
from clio_web.body import BLOCK, gzip_stream, reblock
from clio_web.errors import WebConfigError
from clio_web.options import WebOptions
from tests.unit.web.support import TEXT, FixedExposition, Service


class ReadingClient(FlaskClient):
    """Reads and closes every answer, as a WSGI server does."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        return super().open(*args, **{"buffered": True, **kwargs})


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def own(telemetry: Telemetry, name: str) -> dict[tuple[str, ...], float]:
    """The exporter's own samples of a name, by the values of their labels in the order of their names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(telemetry.render(openmetrics=False).decode())
        for sample in family.samples
        if sample.name == name
    }


@pytest.fixture
def client(service: Service, telemetry: Telemetry) -> FlaskClient:
    app = create_app(service, WebOptions(max_requests=1), telemetry)
    app.test_client_class = ReadingClient
    return app.test_client()


def test_metrics_as_text(client: FlaskClient, service: Service) -> None:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.data == TEXT
    assert answer.headers["Content-Type"] == TEXT_CONTENT_TYPE
    assert answer.headers["Vary"] == "Accept, Accept-Encoding"
    assert "Content-Encoding" not in answer.headers
    assert service.calls == [("scrape", None, 10.0)]


def test_metrics_as_openmetrics(client: FlaskClient) -> None:
    answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert answer.data == TEXT + b"# EOF\n"
    assert answer.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"


def test_metrics_gzip(client: FlaskClient) -> None:
    answer = client.get("/metrics", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(answer.data) == TEXT
    plain = client.get("/metrics", headers={"Accept-Encoding": "gzip;q=0"})
    assert plain.data == TEXT
    assert "Content-Encoding" not in plain.headers


def test_filters_and_timeout_reach_the_service(client: FlaskClient, service: Service) -> None:
    headers = {"X-Prometheus-Scrape-Timeout-Seconds": "5"}
    client.get("/metrics?collect[]=worker&collect[]=node", headers=headers)
    client.get("/metrics?exclude[]=bdev", headers=headers)
    client.get("/probe?target=n1:9413&collect[]=bdev", headers=headers)
    assert service.calls == [
        ("scrape", frozenset({"worker", "node"}), 4.75),
        ("scrape", frozenset({"worker", "node"}), 4.75),
        ("probe", "n1:9413", frozenset({"bdev"}), 4.75),
    ]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("/metrics?collect[]=nope", "enabled are: bdev, node, worker"),
        ("/metrics?collect[]=node&exclude[]=worker", "cannot be combined"),
        ("/probe", "target is missing"),
        ("/probe?target=a:1&target=b:1", "given 2 times"),
        ("/probe?target=nowhere", "not host:port"),
        ("/probe?target=n1:1&collect[]=nope", "no collector 'nope'"),
    ],
)
def test_bad_arguments(client: FlaskClient, service: Service, url: str, says: str) -> None:
    for method in ("GET", "HEAD"):
        answer = client.open(url, method=method)
        assert answer.status_code == 400
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        if method == "GET":
            assert says in answer.text
    assert service.calls == []


def test_bad_timeout_header(client: FlaskClient) -> None:
    answer = client.get("/metrics", headers={"X-Prometheus-Scrape-Timeout-Seconds": "soon"})
    assert answer.status_code == 400
    assert "X-Prometheus-Scrape-Timeout-Seconds" in answer.text


def test_unknown_target(client: FlaskClient) -> None:
    answer = client.get("/probe?target=stranger:1")
    assert answer.status_code == 404
    assert answer.text == "stranger:1 is not a member; add it to the hostfile\n"
    # The place of the failed probe is free again (the limit is 1).
    assert client.get("/probe?target=n1:1").status_code == 200


def test_service_discovery(client: FlaskClient, service: Service) -> None:
    answer = client.get("/sd")
    assert answer.headers["Content-Type"] == "application/json"
    assert json.loads(answer.data) == service.target_groups()


def test_health_and_readiness(client: FlaskClient, service: Service) -> None:
    assert client.get("/-/healthy").status_code == 200
    assert client.get("/-/ready").status_code == 200
    service.is_ready = False
    assert client.get("/-/ready").status_code == 503
    assert client.get("/-/healthy").status_code == 200


def test_reload_by_http_is_off_unless_it_is_switched_on(client: FlaskClient, service: Service) -> None:
    refused = client.post("/-/reload")
    assert refused.status_code == 403
    assert "--web.enable-lifecycle" in refused.text
    assert service.calls == []


def test_a_foreign_host_is_refused_when_the_names_are_known(service: Service) -> None:
    client = create_app(service, WebOptions(allowed_hosts=("mon.example",))).test_client()
    for path in ("/", "/metrics", "/probe?target=n1:1", "/sd", "/-/healthy", "/nowhere"):
        assert client.get(path, headers={"Host": "evil.example:9777"}).status_code == 421
    assert service.calls == []
    for host in ("mon.example:9777", "10.0.0.5:9777", "localhost"):
        assert client.get("/metrics", headers={"Host": host}).status_code == 200


def test_reload(service: Service) -> None:
    client = create_app(service, WebOptions(enable_lifecycle=True)).test_client()
    for headers in (
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example"},
    ):
        assert client.post("/-/reload", headers=headers).status_code == 403
    assert client.post("/-/reload").status_code == 200
    assert client.put("/-/reload").status_code == 200
    refused = client.get("/-/reload")
    assert refused.status_code == 405
    assert set(refused.headers["Allow"].split(", ")) == {"POST", "PUT"}
    assert service.calls == [("reload",)] * 2
    service.reload_error = ConfigError("clio.yml", "no such key", "Remove it", 3)
    failed = client.post("/-/reload")
    assert failed.status_code == 500
    assert "see the log" in failed.text
    assert "clio.yml" not in failed.text


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/probe?target=n1:1", "/sd", "/-/healthy", "/-/ready", "/landing.css", RUNBOOKS]
)
def test_get_only_and_head(client: FlaskClient, service: Service, path: str) -> None:
    refused = client.post(path)
    assert refused.status_code == 405
    assert set(refused.headers["Allow"].split(", ")) == {"GET", "HEAD"}
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    assert sum(1 for call in service.calls if call[0] in ("scrape", "probe")) <= 1  # HEAD collects nothing


def test_other_paths(client: FlaskClient) -> None:
    assert client.get("/favicon.ico").status_code == 204
    for path in ("/nope", "/metrics/", "/-/quit", "/static/x"):
        answer = client.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert "/metrics" in answer.text
    assert client.options("/metrics").status_code == 405


def test_landing_page(service: Service) -> None:
    service.clusters = [
        ClusterSummary(
            "ares",
            4,
            3,
            "/etc/hosts.ares",
            "ares",
            (NodeState(3, "n3:9413", "down", "refused, <b>"), NodeState(0, "n0:9413", "up")),
        ),
        ClusterSummary("<script>", 2, None, "the runtime"),
    ]
    client = create_app(
        service,
        WebOptions(telemetry_path="/data", docs_url="https://docs.example/x", grafana_url="https://g/x/"),
    ).test_client()
    page = client.get("/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    for part in (
        'href="/data"',
        'href="/sd"',
        'href="/-/healthy"',
        "ares",
        "&lt;script&gt;",
        "not collected yet",
        'href="https://docs.example/x"',
        'href="https://g/x/d/clio-topology"',
        'href="https://g/x/d/clio-node?var-cluster=ares&amp;var-node=3"',
        'href="/probe?target=n3%3A9413&amp;debug=true"',
        "down: refused, &lt;b&gt;",
        'href="/docs/runbooks.md"',
    ):
        assert part in page.text
    assert "<script>" not in page.text
    assert page.text.index("n3:9413") < page.text.index("n0:9413")
    assert "default-src 'none'; style-src 'self'" in page.headers["Content-Security-Policy"]
    assert "prefers-color-scheme: dark" in client.get("/landing.css").text
    assert client.get("/data").data == TEXT
    assert client.get("/metrics").status_code == 404


def test_a_large_cluster_is_cut_and_says_so(service: Service) -> None:
    states = tuple(NodeState(number, f"n{number}:1", "up") for number in range(MOST_ROWS + 7))
    service.clusters = [ClusterSummary("big", len(states), len(states), "x", "", states)]
    page = create_app(service, WebOptions()).test_client().get("/").text
    assert page.count("<tr><td>") == MOST_ROWS
    assert "And 7 more" in page


@pytest.mark.parametrize("url", ["grafana:3000", "javascript:alert(1)", 'http://x"onclick=', "http://"])
def test_what_is_no_address_to_link_to(service: Service, url: str) -> None:
    with pytest.raises(WebConfigError, match=r"--web\.grafana-url"):
        create_app(service, WebOptions(grafana_url=url))
    with pytest.raises(WebConfigError, match=r"--web\.docs-url"):
        create_app(service, WebOptions(docs_url=url))


def test_alerts_link_to_runbooks_here(client: FlaskClient) -> None:
    page = client.get(RUNBOOKS)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    for alert in rules.alerts():
        assert f'id="{alert.name.lower()}"' in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert rules.Options().docs_url == ""
    assert prometheus.DOCS_URL.endswith(RUNBOOKS.removesuffix("/runbooks.md"))


def test_a_heading_in_code_is_none() -> None:
    found = sections("# One\n\ntext\n```sh\n# no heading\n```\n## It's two!\n\n### c `d`\nend\n")
    assert [(s.level, s.title, s.anchor) for s in found] == [
        (1, "One", "one"),
        (2, "It's two!", "its-two"),
        (3, "c `d`", "c-d"),
    ]
    assert found[0].text == "text\n```sh\n# no heading\n```"
    assert [s.text for s in found[1:]] == ["", "end"]


def test_a_probe_explains_itself(client: FlaskClient, service: Service) -> None:
    answer = client.get(
        "/probe?target=n1:9413&debug=true", headers={"Accept": "application/openmetrics-text"}
    )
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.data == b"target: n1:9413\n\nMetrics:\n" + TEXT
    assert client.get("/probe?target=n1:9413&debug=1").data == TEXT
    assert client.get("/probe?target=stranger:1&debug=true").status_code == 404


@pytest.mark.parametrize(
    "path", ["metrics", "", "/", "/sd", "/-/reload", "/a b", "//x", "/<x>", "/m?x", "/é"]
)
def test_telemetry_path_is_checked(service: Service, path: str) -> None:
    with pytest.raises(WebConfigError, match=r"--web\.telemetry-path"):
        create_app(service, WebOptions(telemetry_path=path))


@pytest.mark.parametrize(
    ("collect_error", "render_error"), [(RuntimeError("secret 1"), None), (None, RuntimeError("secret 2"))]
)
def test_failure_before_the_first_byte(
    client: FlaskClient, service: Service, collect_error: Exception | None, render_error: Exception | None
) -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    try:
        service.error = collect_error
        service.exposition = FixedExposition(failure=render_error)
        answer = client.get("/metrics")
    finally:
        logging.getLogger().handlers = [
            h for h in logging.getLogger().handlers if getattr(h, "stream", None) is not stream
        ]
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    event = json.loads(stream.getvalue().splitlines()[0])
    assert event["request_id"] in answer.text
    assert "secret" in event["exception"]
    service.error, service.exposition = None, FixedExposition()
    assert client.get("/metrics").status_code == 200  # its place was given back


def test_failure_after_the_first_block_breaks_the_transfer(client: FlaskClient, service: Service) -> None:
    service.exposition = FixedExposition([b"x" * BLOCK] * 3, failure=RuntimeError("late"))
    with pytest.raises(ResponseAborted):
        client.get("/metrics")


def test_limit_of_scrapes(service: Service, telemetry: Telemetry) -> None:
    client = create_app(service, WebOptions(max_requests=2), telemetry).test_client()
    first, second = (client.get("/metrics", buffered=False) for _ in range(2))
    assert own(telemetry, "clio_exporter_http_scrapes_in_flight") == {(): 2}
    refused = client.get("/metrics")
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "1"
    assert "--web.max-requests" in refused.text
    assert client.get("/-/healthy").status_code == 200
    for answer in (first, second, second):
        answer.close()
    assert own(telemetry, "clio_exporter_http_scrapes_in_flight") == {(): 0}
    assert client.get("/metrics").status_code == 200


def test_requests_are_counted_by_route(client: FlaskClient, telemetry: Telemetry) -> None:
    for path in ("/metrics", "/metrics", "/random/1", "/random/2", "/probe", "/-/reload"):
        client.get(path).close()
    assert own(telemetry, "clio_exporter_http_requests_total") == {
        ("200", "/metrics"): 2,
        ("404", "other"): 2,
        ("400", "/probe"): 1,
        ("405", "other"): 1,
    }


@pytest.mark.parametrize(
    "sizes", [[], [0], [1, 2, 3], [BLOCK], [BLOCK - 1, 1], [3 * BLOCK + 5], [10, 5 * BLOCK, 7]]
)
def test_reblock_keeps_every_byte(sizes: list[int]) -> None:
    chunks = [bytes([n % 251]) * size for n, size in enumerate(sizes)]
    blocks = list(reblock(chunks))
    assert b"".join(blocks) == b"".join(chunks)
    assert all(len(block) <= BLOCK for block in blocks)
    assert all(len(block) == BLOCK for block in blocks[:-1])
    assert gzip.decompress(b"".join(gzip_stream(reblock(chunks)))) == b"".join(chunks)


def test_a_large_exposition_is_never_held_whole(service: Service) -> None:
    line = b'clio_worker_tasks_processed_total{node_id="1",worker_id="2"} 3\n' * 256
    count = 25_000_000 // len(line)

    class Large(FixedExposition):
        def render(self, openmetrics: bool):  # type: ignore[no-untyped-def]
            return (bytes(line) for _ in range(count))

    service.exposition = Large()
    client = create_app(service, WebOptions()).test_client()
    answer = client.get("/metrics", headers={"Accept-Encoding": "gzip"}, buffered=False)
    tracemalloc.start()
    try:
        compressed = sum(len(block) for block in answer.iter_encoded())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        answer.close()
    assert 0 < compressed < count * len(line) / 20
    assert peak < 2_000_000


# --- /config ------------------------------------------------------------------------------------------


def test_config_is_yaml_with_the_flags(service: Service) -> None:
    app = create_app(service, WebOptions(), flags={"--log.level": "info"})
    answer = app.test_client().get("/config")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert yaml.safe_load(answer.data) == {**service.config(), "flags": {"--log.level": "info"}}
    assert 'href="/config"' in app.test_client().get("/").text


@pytest.mark.parametrize(
    ("host", "names", "status"),
    [
        ("127.0.0.1:9777", (), 200),
        ("[::1]:9777", (), 200),
        ("localhost", (), 200),
        (socket.gethostname(), (), 200),
        ("rebound.example", (), 403),
        ("exporter.example", ("exporter.example",), 200),
        ("rebound.example", ("exporter.example",), 421),
    ],
)
def test_config_is_for_who_asks_by_a_name_of_ours(
    service: Service, host: str, names: tuple[str, ...], status: int
) -> None:
    client = create_app(service, WebOptions(allowed_hosts=names)).test_client()
    answer = client.get("/config", headers={"Host": host})
    assert answer.status_code == status
    assert (b"n1" in answer.data) == (status == 200)
