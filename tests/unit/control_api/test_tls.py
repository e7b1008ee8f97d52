"""TLS by the web configuration file: the service, its cookie and its headers."""

from __future__ import annotations

import http.client
import re
import time
from pathlib import Path
from urllib.parse import urlencode

from clio_lab.simulator.process import SimulatorProcess
from tests.exporter_process import Scrape
from tests.unit.control_api.support import TOKENS, control_api
from tests.unit.web.support import Authority, client_context


def test_tls(tmp_path: Path, simulator: SimulatorProcess, hosts: str) -> None:
    authority = Authority()
    certificate, key = authority.issue(tmp_path, "server")
    web = tmp_path / "web.yml"
    web.write_text(f"tls_server_config: {{cert_file: {certificate.name}, key_file: {key.name}}}")
    key.chmod(0o600)
    with control_api(tmp_path, hosts, tokens=True, web_config_file="web.yml") as api:
        server = api.built.server
        server.start()
        try:
            connection = http.client.HTTPSConnection(
                "localhost", server.addresses[0][1], timeout=20, context=client_context(authority)
            )
            connection.request("GET", "/login")
            answer = connection.getresponse()
            secret = re.search(r'name="csrf" value="([^"]+)"', answer.read().decode())
            assert secret is not None
            assert answer.headers["Strict-Transport-Security"]
            cookie = answer.headers["Set-Cookie"]
            assert {"Secure", "HttpOnly", "SameSite=Strict"} <= {p.strip() for p in cookie.split(";")}
            form = urlencode({"csrf": secret[1], "token": TOKENS["anna"][1], "next": "/nodes/0/restart"})
            headers = {
                "Content-Type": "application/x-www-form-urlencoded",
                "Cookie": cookie.split(";")[0],
                "Origin": f"https://localhost:{server.addresses[0][1]}",
                "Sec-Fetch-Site": "same-origin",
            }
            connection.request("POST", "/login", form, headers)
            answer = connection.getresponse()
            answer.read()
            assert (answer.status, answer.headers["Location"]) == (303, "/nodes/0/restart")
            headers["Origin"] = headers["Origin"].replace("https", "http")
            connection.request("POST", "/login", form, headers)
            answer = connection.getresponse()
            assert (answer.status, b"cross-site" in answer.read()) == (403, True)
            connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKENS['vera'][1]}"})
            scrape = Scrape(connection.getresponse().read().decode())
            end = scrape.value("clio_control_web_certificate_expiry_timestamp_seconds")
            assert end == server.certificate_not_after > time.time()
            connection.close()
        finally:
            server.stop()
