"""The `clio-control-api` command: serve, or make a token."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from werkzeug.middleware.proxy_fix import ProxyFix

from clio_client import __version__
from clio_client.address import join_host_port
from clio_client.client import RuntimeClient
from clio_client.config import table
from clio_client.config.errors import ConfigError
from clio_client.errors import TransportUnavailableError
from clio_client.transport.choice import check_transport, make_transport
from clio_client.transport.zeromq import DEFAULT_REPLY_PORT as EXPORTER_REPLY_PORT
from clio_control_api.actions import ActionRunner
from clio_control_api.app import create_app
from clio_control_api.audit import AuditLog
from clio_control_api.clusters import Clusters
from clio_control_api.metrics import Metrics
from clio_control_api.origins import is_loopback
from clio_control_api.pages import configure_sessions
from clio_control_api.queries import NodeQueries
from clio_control_api.services import Services
from clio_control_api.settings import ENV_PREFIX, FILE, SETTINGS, Settings, load, private_directory
from clio_control_api.tokens import Role, TokenStore, line_of, new_token
from clio_web import logs, webconfig
from clio_web.errors import WebConfigError
from clio_web.logs import get_logger
from clio_web.options import ServerLimits, WebOptions
from clio_web.server import ListenError, WebServer

_log = get_logger(__name__)
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}", re.ASCII)
_THREADS = 96


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["token"]:
        return _token(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="clio-control-api",
        description="Serves the control API until stopped. 'clio-control-api token NAME' makes a token.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"clio-control-api {__version__}")
    table.add_arguments(parser, (FILE, *SETTINGS))
    args = parser.parse_args(arguments)
    return _serve(vars(args))


def _serve(flags: dict[str, Any]) -> int:
    logs.configure(flags["log_level"] or "info", flags["log_format"] or "logfmt")
    try:
        settings = settings_from(flags, os.environ, Path.home())
        level = "debug" if settings.debug else settings.log_level
        logs.configure(level, settings.log_format)
        with application(settings, os.environ, Path.home()) as built:
            for line in built.warnings:
                _log.warning(line)
            built.server.serve_forever()
    except (ConfigError, WebConfigError, ListenError, TransportUnavailableError, ValueError) as error:
        text = str(error).replace("--web.listen-address", "--host and --port")
        sys.stderr.write(f"clio-control-api: {text}\n")
        return 1
    return 0


def settings_from(flags: Mapping[str, Any], env: Mapping[str, str], home: Path) -> Settings:
    """Settings from flags, environment and the file that either names; raises `ConfigError`."""
    named = flags.get("config") or env.get(f"{ENV_PREFIX}CONFIG")
    return load(Path(named) if named else None, flags, env, home)


@dataclass(frozen=True, slots=True)
class Application:
    """A control API ready to serve."""

    services: Services
    server: WebServer
    app: Any
    warnings: tuple[str, ...]


@contextlib.contextmanager
def application(settings: Settings, env: Mapping[str, str], home: Path) -> Iterator[Application]:
    """Build everything; closes what it owns at the end.

    Raises:
        ConfigError: the settings cannot be used, or would leave the service open.
    """
    tokens = TokenStore(settings.tokens_file)
    secure = check_exposure(settings, tokens)
    private_directory(settings.state_dir)
    runtime = replace(settings.exporter.runtime, reply_port=settings.reply_port)
    check_transport(runtime)
    queries = NodeQueries(RuntimeClient(lambda: make_transport(runtime, "control-api")))
    try:
        clusters = Clusters(settings.exporter, env, home, queries)
        metrics = Metrics()
        audit = AuditLog(settings.audit_path)
        runner = ActionRunner(queries, audit, metrics, max_actions=settings.limits.max_actions)
        services = Services(settings, tokens, queries, clusters, runner, audit, metrics)
        app = create_app(services)
        configure_sessions(app, secure)
        if settings.proxy_hops:
            hops = settings.proxy_hops
            app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
                app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops
            )
        options = WebOptions(
            listen_addresses=(join_host_port(settings.host, settings.port),),
            config_file=settings.web_config_file,
            max_requests=_THREADS,
        )
        limits = ServerLimits(max_body_bytes=4 * settings.limits.max_body_bytes)
        server = WebServer(
            app,
            options,
            tokens.reload,
            limits,
            reload_error=ConfigError,
            product=f"clio-control-api/{__version__}",
        )
        try:
            yield Application(services, server, app, tuple(_warnings(settings, tokens)))
        finally:
            runner.close()
    finally:
        queries.close()


def check_exposure(settings: Settings, tokens: TokenStore) -> bool:
    """Refuse to start where strangers could act; returns whether browsers reach it over TLS.

    Raises:
        ConfigError: says what is missing.
    """
    web = webconfig.load(settings.web_config_file) if settings.web_config_file else webconfig.WebConfig()
    if web.users and settings.web_config_file is not None:
        raise ConfigError(
            settings.web_config_file,
            "basic_auth_users does not work here: it uses the header that tokens are sent in",
            "Remove it and set tokens_file",
        )
    if not is_loopback(settings.host) and not tokens.configured:
        raise ConfigError(
            "--host",
            f"{settings.host or 'all addresses'} can be reached by others and there are no tokens",
            "Listen on 127.0.0.1, or make a token (clio-control-api token NAME --role operator) and set "
            "--tokens-file",
        )
    external = (settings.external_url or "").startswith("https://")
    return web.tls is not None or external


def _warnings(settings: Settings, tokens: TokenStore) -> Iterator[str]:
    tls = settings.web_config_file is not None or (settings.external_url or "").startswith("https://")
    if tokens.configured and not is_loopback(settings.host) and not tls:
        yield "tokens travel in clear text: configure TLS with --web-config-file, or a proxy and external_url"
    if settings.exporter.runtime.reply_port == settings.reply_port != EXPORTER_REPLY_PORT:
        yield "the exporter is configured for the same reply port: give the control API another reply_port"


def _token(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="clio-control-api token",
        description="Makes a token, which is shown once, on standard error. "
        "Standard output has the line for the tokens file.",
        allow_abbrev=False,
    )
    parser.add_argument("name", help="who it is for; what the audit log shows")
    parser.add_argument("--role", choices=[role.name.lower() for role in Role], default="viewer")
    args = parser.parse_args(arguments)
    if not _NAME.fullmatch(args.name):
        parser.error("a name has 1 to 64 letters, digits, '_', '.', '@' and '-'")
    token = new_token()
    sys.stderr.write(f"token of {args.name} (not stored anywhere): {token}\n")
    sys.stdout.write(line_of(args.name, Role[args.role.upper()], token) + "\n")
    return 0
