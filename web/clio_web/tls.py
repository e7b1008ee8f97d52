"""The `tls_server_config` section of a web configuration file, as an SSLContext.

The format is that of Prometheus's exporter-toolkit (its page "web configuration"). Where
Python's ssl module cannot do what a setting asks for, and where a setting would weaken the server
in silence, loading fails with the reason; nothing is ignored.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from clio_web.errors import quoted
from clio_web.yamldoc import Section, read_file

KEYS = (
    "cert",
    "key",
    "client_ca",
    "cert_file",
    "key_file",
    "client_auth_type",
    "client_ca_file",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "prefer_server_cipher_suites",
    "curve_preferences",
)

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_OLD_VERSIONS = ("TLS10", "TLS11")

_VERIFY = {
    "": ssl.CERT_NONE,
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_UNVERIFIED = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")

# The names of https://pkg.go.dev/crypto/tls#CipherSuites against OpenSSL's own.
_CIPHERS = {
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
# TLS 1.3's own suites; as in Go, they are not configurable and listing them changes nothing there.
_TLS13_CIPHERS = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
_CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}


@dataclass(frozen=True)
class Tls:
    """What a connection needs: the context, and the names a client certificate must have one of.

    `not_after` is the Unix time at which the first of the server's certificate, and those it is sent with,
    ends; None where it cannot be told.
    """

    context: ssl.SSLContext
    allowed_sans: frozenset[str]
    not_after: float | None = None

    def client_allowed(self, certificate: dict[str, Any] | None) -> bool:
        """Whether the verified client certificate (as getpeercert() gives it) is on the list."""
        if not self.allowed_sans:
            return True
        return not self.allowed_sans.isdisjoint(_subject_names(certificate or {}))


def load_tls(section: Section) -> tuple[Tls | None, tuple[Path, ...]]:
    """Build the context; also the files it was read from. None without TLS. Raises WebConfigError."""
    section.only(KEYS)
    if not section.items or not any(section.has(key) for key in section.items):
        return None, ()
    files: list[Path] = []
    certificate = _pem(section, "cert", "cert_file", files)
    key = _pem(section, "key", "key_file", files)
    authority = _pem(section, "client_ca", "client_ca_file", files)
    if certificate is None:
        section.fail("neither cert nor cert_file is given", "Name the server's certificate with cert_file")
    if key is None:
        section.fail("neither key nor key_file is given", "Name the certificate's private key with key_file")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _set_versions(section, context)
    _set_ciphers(section, context)
    _set_curve(section, context)
    _load_pair(section, context, certificate, key)
    sans = _set_client_auth(section, context, authority)
    return Tls(context, sans, first_end(certificate)), tuple(files)


def first_end(certificates: bytes) -> float | None:
    """The Unix time at which the first of some PEM certificates ends; None where they cannot be read."""
    # Takes memory, which a service without TLS does not need. The ssl module tells this of authorities only.
    from cryptography import x509

    try:
        chain = x509.load_pem_x509_certificates(certificates)
        return min(certificate.not_valid_after_utc.timestamp() for certificate in chain)
    except ValueError:  # OpenSSL takes some that this library is too strict for
        return None


def _pem(section: Section, inline: str, file: str, files: list[Path]) -> bytes | None:
    if section.text(inline) and section.text(file):
        section.fail(f"{inline} and {file} are both given", "Keep one of them", inline)
    secret = inline == "key"
    if section.text(inline):
        if secret:
            _refuse_public(section, section.path, inline)
        return section.text(inline).encode("utf-8", errors="surrogateescape")
    if not section.text(file):
        return None
    path = section.path.parent / section.text(file)

    def fail(problem: str, remedy: str) -> NoReturn:
        section.fail(problem, remedy, file)

    files.append(path)
    content = read_file(path, section.full(file), fail)
    if secret:
        _refuse_public(section, path, file)
    return content


def _refuse_public(section: Section, path: Path, key: str) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & stat.S_IRWXO:
        section.fail(
            f"{section.full(key)}: {quoted(path, 300)} holds a private key and is open to all users "
            f"(mode {mode:04o})",
            f"Run: chmod 0640 {path}",
            key,
        )


def _set_versions(section: Section, context: ssl.SSLContext) -> None:
    limits = {}
    for key, default in (("min_version", "TLS12"), ("max_version", "TLS13")):
        name = section.text(key) or default
        if name in _OLD_VERSIONS:
            section.fail(
                f"{section.full(key)} {name} is not offered: TLS 1.0 and 1.1 are withdrawn (RFC 8996)",
                "Use TLS12 or TLS13",
                key,
            )
        if name not in _VERSIONS:
            section.fail(
                f"{section.full(key)}: unknown TLS version {quoted(name)}", "Use TLS12 or TLS13", key
            )
        limits[key] = _VERSIONS[name]
    if limits["min_version"] > limits["max_version"]:
        section.fail(
            "min_version is above max_version", "Lower min_version or raise max_version", "min_version"
        )
    context.minimum_version = limits["min_version"]
    context.maximum_version = limits["max_version"]


def _set_ciphers(section: Section, context: ssl.SSLContext) -> None:
    names = section.texts("cipher_suites")
    for name in names:
        if name not in _CIPHERS and name not in _TLS13_CIPHERS:
            section.fail(
                f"cipher_suites: unknown cipher {quoted(name)}",
                "Use the names of https://pkg.go.dev/crypto/tls#CipherSuites",
                "cipher_suites",
            )
    configurable = [_CIPHERS[name] for name in names if name in _CIPHERS]
    if configurable:
        try:
            context.set_ciphers(":".join(configurable))
        except ssl.SSLError:
            section.fail(
                "cipher_suites: OpenSSL here offers none of them", "List stronger ciphers", "cipher_suites"
            )
        offered = {cipher["name"] for cipher in context.get_ciphers()}
        for name in names:
            if name in _CIPHERS and _CIPHERS[name] not in offered:
                section.fail(
                    f"cipher_suites: OpenSSL here does not offer {name}",
                    "Remove it from the list",
                    "cipher_suites",
                )
    elif names:
        if context.maximum_version < ssl.TLSVersion.TLSv1_3:
            section.fail(
                "cipher_suites lists only suites of TLS 1.3 and max_version excludes it",
                "Raise max_version or add a suite of TLS 1.2",
                "cipher_suites",
            )
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    if section.flag("prefer_server_cipher_suites", True):
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE


def _set_curve(section: Section, context: ssl.SSLContext) -> None:
    names = section.texts("curve_preferences")
    for name in names:
        if name not in _CURVES:
            section.fail(
                f"curve_preferences: unknown curve {quoted(name)}",
                f"Use one of: {', '.join(_CURVES)}",
                "curve_preferences",
            )
    if len(names) > 1:
        section.fail(
            "curve_preferences: Python's ssl module takes a single curve",
            "List one curve, or leave the key out for OpenSSL's own order",
            "curve_preferences",
        )
    if names:
        try:
            context.set_ecdh_curve(_CURVES[names[0]])
        except (ValueError, ssl.SSLError):
            section.fail(
                f"curve_preferences: Python's ssl module here cannot select {names[0]}",
                "List another curve, or leave the key out",
                "curve_preferences",
            )


def _load_pair(section: Section, context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    key_name = "key_file" if section.text("key_file") else "key"

    def no_passphrase() -> str:
        # Without this callback OpenSSL would ask on the terminal and block the process.
        section.fail(
            f"{section.full(key_name)}: the private key is encrypted",
            "Give a key without passphrase (openssl pkey -in KEY -out PLAIN), readable by the exporter only",
            key_name,
        )

    try:
        with _as_file(certificate) as certificate_path, _as_file(key) as key_path:
            context.load_cert_chain(certificate_path, key_path, password=no_passphrase)
    except ssl.SSLError as error:
        reason = (error.reason or "not PEM").replace("_", " ").lower()
        section.fail(
            f"certificate and private key cannot be used: {reason}",
            "Give a PEM certificate (chain) and the PEM private key that belongs to it",
            "cert_file" if section.text("cert_file") else "cert",
        )


def _set_client_auth(section: Section, context: ssl.SSLContext, authority: bytes | None) -> frozenset[str]:
    kind = section.text("client_auth_type")
    if kind in _UNVERIFIED:
        section.fail(
            f"client_auth_type {kind} takes certificates without verifying them, "
            "which Python's ssl module cannot do",
            "Use VerifyClientCertIfGiven or RequireAndVerifyClientCert with client_ca_file",
            "client_auth_type",
        )
    if kind not in _VERIFY:
        known = ", ".join((*[name for name in _VERIFY if name], *_UNVERIFIED[:2]))
        section.fail(
            f"client_auth_type: unknown value {quoted(kind)}", f"Use one of: {known}", "client_auth_type"
        )
    mode = _VERIFY[kind]
    ca_key = "client_ca_file" if section.text("client_ca_file") else "client_ca"
    if mode == ssl.CERT_NONE and authority is not None:
        section.fail(
            f"{ca_key} is given but client_auth_type asks for no certificate",
            "Set client_auth_type: RequireAndVerifyClientCert, or remove it",
            ca_key,
        )
    if mode != ssl.CERT_NONE:
        if authority is None:
            section.fail(
                f"client_auth_type {kind} without client_ca_file would accept any certificate "
                "of a public authority",
                "Name the authority of your clients with client_ca_file",
                "client_auth_type",
            )
        try:
            context.load_verify_locations(cadata=authority.decode("ascii"))
        except (ssl.SSLError, ValueError):  # not PEM, not ASCII or empty
            section.fail(f"{section.full(ca_key)} has no usable certificate", "Give PEM certificates", ca_key)
    context.verify_mode = mode
    sans = section.texts("client_allowed_sans")
    if sans and mode != ssl.CERT_REQUIRED:
        section.fail(
            "client_allowed_sans checks nothing unless a verified certificate is required",
            "Set client_auth_type: RequireAndVerifyClientCert",
            "client_allowed_sans",
        )
    if section.has("client_allowed_sans") and not sans:
        section.fail(
            "client_allowed_sans is empty",
            "List the names of the clients, or remove it",
            "client_allowed_sans",
        )
    return frozenset(_normal_san(name) for name in sans)


def _normal_san(name: str) -> str:
    """One spelling for an IP address; anything else as it stands (the match is exact)."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def _subject_names(certificate: dict[str, Any]) -> Iterator[str]:
    for kind, value in certificate.get("subjectAltName", ()):
        if kind == "IP Address":
            yield _normal_san(value.strip())
        elif kind in ("DNS", "email", "URI"):
            yield value


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A path that reads as `content`: OpenSSL takes paths only, and a key must not touch a disk."""
    descriptor = os.memfd_create("clio-exporter-pem", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
