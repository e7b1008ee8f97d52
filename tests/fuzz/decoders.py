"""Every decoder of foreign bytes: how it is called, which errors it documents, what it is tried with."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

from clio_client.config.errors import ConfigError
from clio_client.config.hostfile import hostfile_warnings, parse_hostfile
from clio_client.config.known_keys import publishable
from clio_client.config.runtime_conf import flatten, parse_runtime_config
from clio_client.errors import MalformedAnswerError
from clio_client.protocol import codec, records
from clio_client.protocol.codec import Generation
from clio_client.search import SearchError, parse_search
from clio_control_api import audit, known_hosts, ssh_config, tokens
from clio_control_api import settings as control_settings
from clio_control_api.alertmanager.decide import decide, read_notification
from clio_control_api.alertmanager.history import History
from clio_control_api.errors import BadRequest, Unavailable
from clio_control_api.node_report import read_report
from clio_control_api.node_script import printable
from clio_control_api.operations import alerts
from clio_control_api.operations.store import OperationStore
from clio_control_api.promapi import parse_selector
from clio_control_api.proxies import client_of
from clio_control_api.settings import SshSettings
from clio_control_api.ssh_errors import HostKeyError, SshConfigError
from clio_exporter import job_map, sd_file
from clio_exporter import settings as exporter_settings
from clio_exporter.backfill import live
from clio_exporter.doctor import checks_services, services
from clio_exporter.job import marks, nodes, state
from clio_exporter.report import build, source
from clio_exporter.report.questions import Range
from clio_exporter.service_client import Answer, Service
from clio_exporter.top import saved, sources, view
from clio_exporter.top.frame import read_frame
from clio_web import webconfig
from clio_web.arrival import missing, missing_hello
from clio_web.auth import PasswordChecker
from clio_web.errors import WebConfigError
from tests.fuzz.http_requests import control_api_requests, exporter_requests, shaped, taken_apart
from tests.fuzz.mutate import PARTS
from tests.paths import FIXTURES
from tests.unit import recorded

CORPUS: Final = FIXTURES / "fuzz"
Decode = Callable[[bytes], object]
Opened = Callable[[Path], contextlib.AbstractContextManager[Decode]]


@dataclass(frozen=True)
class Decoder:
    """A decoder of foreign bytes.

    Attributes:
        weight: its share of the inputs; those that are slow have little.
        errors: what may come out of it.
        opened: gives the function, which may use the directory; it is closed after the last input.
        seeds: recordings that inputs are made of, beside the corpus.
    """

    name: str
    weight: int
    errors: tuple[type[Exception], ...]
    opened: Opened
    seeds: Callable[[], list[bytes]] = list

    def all_seeds(self) -> list[bytes]:
        """The corpus, then the recordings."""
        files = sorted(path for path in (CORPUS / self.name).glob("*") if path.is_file())
        return [path.read_bytes() for path in files] + self.seeds()


def _plain(decode: Decode) -> Opened:
    return lambda _home: contextlib.nullcontext(decode)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


# --- runtimes ---------------------------------------------------------------------------------------------

_MODULES: Final = ("clio_bdev", "clio_safe_bdev", "clio_cte_core", "clio_something")


def _frame(data: bytes) -> None:
    """The first byte says of which generation."""
    generation = list(Generation)[data[0] % len(Generation)] if data else Generation.C
    frame = data[1:]
    codec.peek_request_id(frame, generation)
    answer = codec.decode_answer(generation, frame)
    if answer.method == codec.METHOD_CLIENT_CONNECT:
        codec.decode_connect(generation, answer.body)
        return
    for document in codec.decode_monitor(generation, answer.body).documents.values():
        _read_as(len(document), document)


def _frames() -> list[bytes]:
    order = list(Generation)
    small = [f for f in recorded.answers() if len(f.data) < 8000]
    return [bytes([order.index(f.generation)]) + f.data for f in small]


def _read_as(kind: int, document: bytes) -> None:
    match kind % 8:
        case 0:
            records.read_workers(codec.decode_document(document))
        case 1:
            records.read_samples(codec.decode_tail(document, 60))
        case 2:
            records.read_host_info(codec.decode_document(document))
        case 3:
            records.read_containers(codec.decode_document(document))
        case other:
            found = records.read_pool_stats(_MODULES[other - 4], codec.decode_document(document))
            if isinstance(found, records.BdevStats):
                records.parse_health(found.device_health)


_KINDS: Final = {
    "worker_stats": 0, "system_stats_0": 1, "get_host_info": 2, "container_stats": 3,
    "pool_stats_301.0_local_stats": 4, "pool_stats_400.0_local_stats": 5, "pool_stats_512.0_local_stats": 6,
    "pool_stats_560.0_local_stats": 7,
}  # fmt: skip


def _documents() -> list[bytes]:
    found = []
    for version in recorded.versions():
        for name, kind in _KINDS.items():
            path = FIXTURES / version / f"{name}.msgpack"
            if path.exists() and path.stat().st_size < 8000:
                found.append(bytes([kind]) + path.read_bytes())
    return found


def _document(data: bytes) -> None:
    """The first byte says what it is read as."""
    if data:
        _read_as(data[0], data[1:])


def _health(data: bytes) -> None:
    records.parse_health(_text(data))


# --- files ------------------------------------------------------------------------------------------------

Read = Callable[[Path], object]


def _file(name: str, read: Read) -> Opened:
    """Decoders that are given a path."""

    @contextlib.contextmanager
    def opened(home: Path) -> Iterator[Decode]:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)

        def decode(data: bytes) -> None:
            path.write_bytes(data)
            path.chmod(0o600)
            read(path)

        with (
            mock.patch.object(Path, "home", return_value=home),
            mock.patch.dict("os.environ", HOME=str(home)),
        ):
            yield decode

    return opened


def _runtime_config(data: bytes) -> None:
    path = Path("/etc/clio/clio.yaml")
    config = parse_runtime_config(_text(data), path, {"HOME": "/root"}, Path("/root"))
    flatten(publishable(config.document))


def _control_settings(path: Path) -> None:
    control_settings.load(path, {}, {}, path.parent)


def _hostfile(data: bytes) -> None:
    hostfile_warnings(_text(data), "hosts")
    parse_hostfile(_text(data), "hosts")


class _Key:
    """A host's key, as far as known_hosts needs one."""

    def get_name(self) -> str:
        return "ssh-ed25519"

    def asbytes(self) -> bytes:
        return b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + bytes(32)

    def get_base64(self) -> str:
        return "AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


def _known_hosts(path: Path) -> None:
    found = known_hosts.KnownHosts(path)
    for name in (known_hosts.HostName("node1"), known_hosts.HostName("node1", 2222)):
        found.kinds_of(name)
        found.check(name, _Key(), "strict")


def _ssh_config(path: Path) -> None:
    ssh_config.destination("node1", SshSettings(config_file=path))


def _job(path: Path) -> None:
    job = state.load(path.parent)
    assert job.title
    marks.rules(job, [marks.Mark(1.0, "text")])


def _marks(path: Path) -> None:
    job = state.Job("host", {"job_id": "1"}, 1, 1.0, 0.0)
    marks.rules(job, marks.read(path.parent))


def _target_file(path: Path) -> None:
    with sd_file.TargetFile(path, 60.0):
        pass


def _operation(path: Path) -> None:
    for operation in OperationStore(path.parent).load():
        json.dumps(operation.document())


def _history(path: Path) -> None:
    history = History(path)
    past = history.of(("lab", 3))
    history.under_way("lab")
    decide(past, 1, 4, 2000.0, dry_run=False, max_per_hour=1, max_down_percent=25)


# --- other services ---------------------------------------------------------------------------------------

_ASKED: Final = Range(1000.0, 1100.0, 1.0)


def _service(use: Callable[[Service], object]) -> Opened:
    """Answers to successive questions stand one after the other in the input; the last is given again."""

    @contextlib.contextmanager
    def opened(_home: Path) -> Iterator[Decode]:
        left: list[bytes] = []

        def ask(*_: Any) -> Answer:
            return Answer(200, left.pop(0) if len(left) > 1 else left[0])

        def decode(data: bytes) -> None:
            left[:] = data.split(PARTS)
            use(Service("http://127.0.0.1:9090", 1.0))

        with mock.patch.object(Service, "_ask", ask):
            yield decode

    return opened


def _report(service: Service) -> None:
    source.newest(service.url)
    loaded = source.rules_loaded(service.url)
    build.build("job", _ASKED, source.ask(service.url, _ASKED), rules=loaded, marks=())


def _live(service: Service) -> None:
    found = live.look(service, ["clio_node_up"], {})
    for series in found.series:
        found.interval(series)


def _doctor(service: Service) -> None:
    list(checks_services.exporter(services.look_at_exporter(service)))
    look = services.look_at_prometheus(service)
    list(checks_services.scraped(look, "http://127.0.0.1:9777"))
    list(checks_services.rules(look))
    list(checks_services.grafana(services.look_at_grafana(service)))
    list(checks_services.control_api(services.look_at_control_api(service)))


def _saved(service: Service) -> None:
    job = state.Job("host", {"job_id": "1"}, 1, 1.0, 1000.0, 1100.0)
    with mock.patch.multiple(
        saved, state=mock.Mock(load=lambda _: job), server=_NoServer, Service=lambda *_: service
    ):
        source_of_frames = saved.Saved(Path("/nonexistent"), None)
        frame = source_of_frames.frame(None)
        view.printed(frame, parse_search(""), "tasks", 100)
        for key in frame.nodes:
            source_of_frames.curves(key, frame.at, 1.0, 10)


class _NoServer:
    """The job's Prometheus is what answers."""

    @staticmethod
    def running_prometheus(_job: state.Job) -> None:
        """None of the job's own."""

    @staticmethod
    def asked(*_: Any) -> contextlib.AbstractContextManager[str]:
        """One on its data."""
        return contextlib.nullcontext("http://127.0.0.1:9090")


def _metrics_text(data: bytes) -> None:
    """Two scrapes, with a line of dashes between them."""
    frame = None
    search = parse_search("1-3")
    for number, part in enumerate(data.split(PARTS)):
        frame = read_frame(part.decode(errors="replace"), 10.0 + number, frame)
        for sort in ("node", "tasks"):
            view.printed(frame, search, sort, 160)
            view.printed(frame, parse_search(""), sort, 100)
        for node in frame.nodes.values():
            view.detail(node)


# --- the rest ---------------------------------------------------------------------------------------------


def _language(data: bytes) -> None:
    """Search box, selectors, and headers that say where a request comes from."""
    text = _text(data)
    with contextlib.suppress(SearchError):
        parse_search(text).matches(3, ("node1", None))
    with contextlib.suppress(BadRequest):
        for matcher in parse_selector(text).matchers:
            matcher.matches("node1")
    client_of("127.0.0.1", text, 1)
    missing(data, 100, 100)
    missing_hello(data)


class _Checker(PasswordChecker):
    """Knows everybody: what a password costs is not what is tried."""

    def check(self, users: Mapping[str, str], user: str, password: str, client: str = "") -> bool:
        return user in users and bool(password.encode("utf-8", "surrogatepass"))


@contextlib.contextmanager
def _basic_auth(home: Path) -> Iterator[Decode]:
    """The header Authorization, as WSGI has it."""
    path = home / "web.yaml"
    path.write_bytes((CORPUS / "web-config" / "seed-2").read_bytes())
    app = webconfig.WebConfigMiddleware(lambda *_: [], webconfig.WebConfigStore(path), _Checker())

    def decode(data: bytes) -> None:
        environ = {
            "HTTP_AUTHORIZATION": data.decode("latin-1"),
            "REQUEST_METHOD": "GET",
            "REMOTE_ADDR": "::1",
        }
        b"".join(app(environ, lambda *_: None))

    yield decode


def _notification(data: bytes) -> None:
    with contextlib.suppress(ValueError, RecursionError):  # what is no JSON the reading of bodies refuses
        document = json.loads(data)
        read_notification(document)


def _shaped(opened: Opened) -> Opened:
    @contextlib.contextmanager
    def of_parts(home: Path) -> Iterator[Decode]:
        with opened(home) as decode:
            yield lambda data: decode(shaped(data))

    return of_parts


def _parts(name: str) -> list[bytes]:
    return [taken_apart(path.read_bytes()) for path in sorted((CORPUS / name).glob("seed-*"))]


DECODERS: Final[tuple[Decoder, ...]] = (
    Decoder("frame", 20, (MalformedAnswerError,), _plain(_frame), _frames),
    Decoder("document", 20, (MalformedAnswerError,), _plain(_document), _documents),
    Decoder("health", 4, (MalformedAnswerError,), _plain(_health)),
    Decoder("http-exporter", 6, (), exporter_requests),
    Decoder("http-control", 6, (), control_api_requests),
    Decoder("request-exporter", 8, (), _shaped(exporter_requests), lambda: _parts("http-exporter")),
    Decoder("request-control", 8, (), _shaped(control_api_requests), lambda: _parts("http-control")),
    Decoder("basic-auth", 4, (), _basic_auth),
    Decoder("language", 10, (), _plain(_language)),
    Decoder("notification", 4, (BadRequest,), _plain(_notification)),
    Decoder(
        "settings", 3, (ConfigError,),
        _plain(lambda data: exporter_settings.parse_settings(_text(data), Path("/etc/clio/exporter.yaml"))),
    ),
    Decoder("control-settings", 3, (ConfigError,), _file("control.yaml", _control_settings)),
    Decoder("runtime-config", 3, (ConfigError,), _plain(_runtime_config)),
    Decoder("web-config", 2, (WebConfigError,), _file("web.yaml", webconfig.load)),
    Decoder("hostfile", 8, (ConfigError,), _plain(_hostfile)),
    Decoder("known-hosts", 4, (HostKeyError,), _file("known_hosts", _known_hosts)),
    Decoder("ssh-config", 4, (SshConfigError,), _file(".ssh/config", _ssh_config)),
    Decoder("tokens", 4, (ConfigError,), _file("tokens", tokens.load_tokens)),
    Decoder("nodelist", 8, (ConfigError,), _plain(lambda data: nodes.expand(_text(data), "LIST"))),
    Decoder("job", 3, (ConfigError,), _file(f"job/{state.STATE}", _job)),
    Decoder("marks", 2, (), _file(f"marks/{state.MARKS}", _marks)),
    Decoder("job-file", 4, (job_map.JobFileError,), _plain(lambda data: job_map.parse(_text(data)))),
    Decoder("target-file", 2, (ConfigError,), _file("sd/clio.json", _target_file)),
    Decoder("operation", 2, (), _file("operations/0123456789abcdef.json", _operation)),
    Decoder("history", 2, (Unavailable,), _file("alertmanager.json", _history)),
    Decoder("audit", 4, (), _plain(lambda data: audit.problems(data.splitlines(keepends=True)))),
    Decoder(
        "node-report", 4, (), _plain(lambda data: (read_report(data, "0123456789abcdef"), printable(data)))
    ),
    Decoder("alerts", 4, (alerts.AlertsError,), _plain(alerts.read_answer)),
    Decoder("report", 3, (ConfigError,), _service(_report)),
    Decoder("backfill", 4, (ConfigError,), _service(_live)),
    Decoder("saved", 2, (ConfigError, sources.SourceError), _service(_saved)),
    Decoder("doctor", 2, (), _service(_doctor)),
    Decoder("metrics", 6, (sources.SourceError,), _plain(_metrics_text)),
)  # fmt: skip
"""Runtimes, requests, files, other services."""
