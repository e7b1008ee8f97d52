"""Settings of the web layer, as plain data (flags.py fills them from the command line)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_LISTEN_ADDRESS = ":9777"
DEFAULT_TELEMETRY_PATH = "/metrics"
DEFAULT_MAX_REQUESTS = 40
DEFAULT_CONNECTIONS_PER_ADDRESS = 256
DEFAULT_TIMEOUT_OFFSET = 0.25
DEFAULT_SCRAPE_TIMEOUT = 10.0


@dataclass(frozen=True)
class WebOptions:
    """How the endpoints are served.

    `max_requests` bounds scrapes and probes in progress (0: no bound),
    `max_connections_per_address` what one address may hold of all connections: half of them, as many as some
    forty browsers behind one NAT or proxy keep open; beyond, its own longest idle one is closed, which a
    client that is at work hardly notices. `timeout_offset` and
    `scrape_timeout` are seconds. `docs_url` is what the landing page links to
    as documentation, `grafana_url` as Grafana (empty: no link). `disable_exporter_metrics` leaves out
    what the exporter says of itself. `enable_lifecycle` allows a reload by HTTP. `allowed_hosts` are the
    names this service is asked by (none: any); addresses and localhost are always allowed.
    """

    listen_addresses: tuple[str, ...] = (DEFAULT_LISTEN_ADDRESS,)
    telemetry_path: str = DEFAULT_TELEMETRY_PATH
    config_file: Path | None = None
    max_requests: int = DEFAULT_MAX_REQUESTS
    max_connections_per_address: int = DEFAULT_CONNECTIONS_PER_ADDRESS
    timeout_offset: float = DEFAULT_TIMEOUT_OFFSET
    scrape_timeout: float = DEFAULT_SCRAPE_TIMEOUT
    docs_url: str = ""
    enable_lifecycle: bool = False
    allowed_hosts: tuple[str, ...] = ()
    grafana_url: str = ""
    disable_exporter_metrics: bool = False


@dataclass(frozen=True)
class ServerLimits:
    """Bounds of the HTTP server. Seconds, bytes or counts.

    `header_timeout` covers the TLS handshake and the whole request head, however slowly its bytes
    arrive; `write_timeout` the whole response from its first byte, `slow_after` what a client may take
    for it while another request of its address waits for a worker; `io_timeout` one read or write
    without progress; `first_byte_timeout` a connection that says nothing at all. `poll_interval`
    is how often idle connections are looked at, and the time a stop takes to be noticed.
    """

    header_timeout: float = 10.0
    write_timeout: float = 60.0
    slow_after: float = 5.0
    io_timeout: float = 10.0
    first_byte_timeout: float = 10.0
    keep_alive_timeout: float = 120.0
    stop_timeout: float = 5.0
    poll_interval: float = 0.5
    max_connections: int = 512
    max_header_bytes: int = 32 * 1024
    max_body_bytes: int = 64 * 1024
    spare_threads: int = 8
