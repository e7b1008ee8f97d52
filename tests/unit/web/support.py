"""A small service, certificates and sockets for the tests of the web layer."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from clio_client.config.errors import ConfigError
from clio_exporter.http.service import ClusterSummary, UnknownTarget

TEXT = b'# HELP clio_node_up Up.\n# TYPE clio_node_up gauge\nclio_node_up{node_id="0"} 1\n'


@dataclass
class FixedExposition:
    chunks: list[bytes] = field(default_factory=lambda: [TEXT])
    failure: Exception | None = None

    def render(self, openmetrics: bool) -> Iterator[bytes]:
        yield from self.chunks
        if self.failure is not None:
            raise self.failure
        if openmetrics:
            yield b"# EOF\n"

    def report(self) -> Iterator[str]:
        yield "target: n1:9413"


@dataclass
class Service:
    """Implements MetricsService; records what it was asked."""

    collectors: tuple[str, ...] = ("node", "worker", "bdev")
    exposition: FixedExposition = field(default_factory=FixedExposition)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    is_ready: bool = True
    error: Exception | None = None
    reload_error: ConfigError | None = None
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    gate: threading.Event | None = None
    clusters: list[ClusterSummary] = field(default_factory=list)

    def scrape(self, collectors: frozenset[str] | None, timeout: float) -> FixedExposition:
        self.calls.append(("scrape", collectors, timeout))
        exposition = self.exposition  # a test that saw it enter may set another one
        self.entered.release()
        if self.gate is not None and not self.gate.wait(20):
            raise TimeoutError("the test never opened the gate")
        if self.error is not None:
            raise self.error
        return exposition

    def probe(self, target: str, collectors: frozenset[str] | None, timeout: float) -> FixedExposition:
        self.calls.append(("probe", target, collectors, timeout))
        if target == "stranger:1":
            raise UnknownTarget("stranger:1 is not a member; add it to the hostfile")
        return self.exposition

    def target_groups(self) -> list[dict[str, Any]]:
        return [{"targets": ["n1:9413"], "labels": {"__meta_clio_node_id": "0"}}]

    def ready(self) -> bool:
        return self.is_ready

    def reload(self) -> None:
        self.calls.append(("reload",))
        if self.reload_error is not None:
            raise self.reload_error

    def summary(self) -> list[ClusterSummary]:
        return self.clusters

    def config(self) -> dict[str, Any]:
        return {"clusters": [{"nodes": ["n1"]}], "probe": {"allow_any": False}}


class Authority:
    """A certificate authority that lives for one test run."""

    def __init__(self, name: str = "test authority") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(name, self.key, self.key.public_key(), name, None, ca=True)

    def _sign(
        self,
        subject: str,
        signer: Any,
        public: Any,
        issuer: str,
        sans: list[x509.GeneralName] | None,
        ca: bool,
        lasts: dt.timedelta = dt.timedelta(days=1),
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + lasts)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if sans:
            usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
            builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        return builder.sign(signer, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self, directory: Path, name: str, *dns: str, lasts: dt.timedelta = dt.timedelta(days=1)
    ) -> tuple[Path, Path]:
        """Write NAME.pem and NAME.key; the certificate is for localhost, 127.0.0.1 and `dns`."""
        key = ec.generate_private_key(ec.SECP256R1())
        sans: list[x509.GeneralName] = [x509.DNSName(n) for n in ("localhost", *dns)]
        sans.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        issuer = self.certificate.subject.rfc4514_string().removeprefix("CN=")
        certificate = self._sign(name, self.key, key.public_key(), issuer, sans, ca=False, lasts=lasts)
        paths = directory / f"{name}.pem", directory / f"{name}.key"
        write(paths[0], certificate.public_bytes(serialization.Encoding.PEM))
        write(paths[1], private_pem(key), 0o600)
        return paths


def private_pem(key: Any, passphrase: bytes | None = None) -> bytes:
    encryption = (
        serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def write(path: Path, content: bytes | str, mode: int = 0o640) -> Path:
    """Replace a file at once, as a careful certificate renewal does."""
    draft = path.with_name(path.name + ".new")
    draft.write_bytes(content if isinstance(content, bytes) else content.encode())
    draft.chmod(mode)
    draft.replace(path)
    return path


def client_context(authority: Authority, pair: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    if pair is not None:
        context.load_cert_chain(*pair)
    return context


def read_to_end(sock: socket.socket) -> bytes:
    """All bytes until the peer closes; a reset counts as the end."""
    received = b""
    while True:
        try:
            data = sock.recv(65536)
        except ConnectionError:
            return received
        if not data:
            return received
        received += data
