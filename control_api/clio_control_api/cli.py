"""The `clio-control-api` command: serve (without a command), make tokens, check an audit log."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from clio_client import __version__
from clio_client.address import join_host_port
from clio_client.client import RuntimeClient
from clio_client.config import commands, table
from clio_client.config.commands import Command
from clio_client.config.errors import ConfigError
from clio_client.errors import TransportUnavailableError
from clio_client.transport.choice import check_transport, make_transport
from clio_client.transport.zeromq import DEFAULT_REPLY_PORT as EXPORTER_REPLY_PORT
from clio_control_api.actions import ActionRunner
from clio_control_api.app import create_app
from clio_control_api.audit import SYSLOG_SOCKET, AuditLog, problems
from clio_control_api.clusters import Clusters
from clio_control_api.exposure import Auth, auth_of
from clio_control_api.metrics import Metrics
from clio_control_api.operations.runner import OperationRunner
from clio_control_api.operations.store import OperationStore
from clio_control_api.operations.world import RealWorld
from clio_control_api.operator_token import CLEAR, ensure_tokens
from clio_control_api.origins import is_loopback
from clio_control_api.performer import Performer
from clio_control_api.proxies import ForwardedMiddleware
from clio_control_api.queries import NodeQueries
from clio_control_api.routes import WEBHOOK_BODY
from clio_control_api.services import Services
from clio_control_api.settings import ENV_PREFIX, FILE, SETTINGS, Settings, load, private_directory
from clio_control_api.token_command import add_arguments, token_command
from clio_control_api.tokens import TokenStore
from clio_web import logs, webconfig
from clio_web.errors import WebConfigError
from clio_web.logs import get_logger
from clio_web.options import ServerLimits, WebOptions
from clio_web.server import ListenError, WebServer

_log = get_logger(__name__)
_THREADS = 96


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        return commands.run("clio-control-api", arguments[0], COMMANDS[arguments[0]], arguments[1:])
    return _serve(vars(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  clio-control-api {name:10} {command.help}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="clio-control-api",
        description=f"Without a command it serves the control API until it is stopped.\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"clio-control-api {__version__}")
    table.add_arguments(parser, (FILE, *SETTINGS))
    return parser


def whole_parser() -> argparse.ArgumentParser:
    """All flags and commands, for completion and the manual page."""
    return commands.whole(_parser(), COMMANDS)


def _serve(flags: dict[str, Any]) -> int:
    logs.configure(flags["log_level"] or "info", flags["log_format"] or "logfmt")
    try:
        settings = settings_from(flags, os.environ, Path.home())
        level = "debug" if settings.debug else settings.log_level
        logs.configure(level, settings.log_format)
        with application(settings, os.environ, Path.home()) as built:
            if built.made_token:
                _log.info("a token for actions was made: an operator's", file=str(built.made_token))
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
    """A control API ready to serve.

    Attributes:
        made_token: the file with an operator's token, where this start has made one.
    """

    services: Services
    server: WebServer
    app: Any
    warnings: tuple[str, ...]
    made_token: Path | None


@contextlib.contextmanager
def application(settings: Settings, env: Mapping[str, str], home: Path) -> Iterator[Application]:
    """Build everything; closes what it owns at the end.

    Raises:
        ConfigError: the settings cannot be used, or would leave the service open.
    """
    auth = check_exposure(settings)
    private_directory(settings.state_dir)
    made_token = None
    if auth is not Auth.NONE and settings.tokens_file is None and ensure_tokens(settings.state_dir):
        made_token = settings.state_dir / CLEAR
    tokens = TokenStore(None if auth is Auth.NONE else settings.tokens_path)
    runtime = replace(settings.exporter.runtime, reply_port=settings.reply_port)
    check_transport(runtime)
    queries = NodeQueries(RuntimeClient(lambda: make_transport(runtime, "control-api")))
    try:
        clusters = Clusters(settings.exporter, env, home, queries)
        metrics = Metrics()
        audit = AuditLog(settings.audit_path, SYSLOG_SOCKET if settings.audit_syslog else None)
        runner = ActionRunner(Performer(queries), audit, metrics, max_actions=settings.limits.max_actions)
        metrics.watch_tokens(tokens.counts)
        operations = OperationRunner(
            RealWorld(settings, clusters, queries, runner),
            OperationStore(settings.state_dir / "operations"),
            audit,
            metrics,
            resume_within=settings.resume_within,
        )
        services = Services(settings, auth, tokens, queries, clusters, runner, audit, metrics, operations)
        app = create_app(services)
        if settings.proxy_hops:
            app.wsgi_app = ForwardedMiddleware(  # type: ignore[method-assign]
                app.wsgi_app, settings.proxy_hops, settings.trusted_proxies
            )
        options = WebOptions(
            listen_addresses=(join_host_port(settings.host, settings.port),),
            config_file=settings.web_config_file,
            max_requests=_THREADS,
        )
        limits = ServerLimits(max_body_bytes=max(4 * settings.limits.max_body_bytes, WEBHOOK_BODY))
        server = WebServer(
            app,
            options,
            tokens.reload,
            limits,
            reload_error=ConfigError,
            product=f"clio-control-api/{__version__}",
        )
        metrics.watch_certificate(lambda: server.certificate_not_after)
        try:
            operations.restore()
            yield Application(
                services, server, app, tuple(_warnings(settings, server.tls_enabled)), made_token
            )
        finally:
            operations.close()
            runner.close()
            audit.close()
    finally:
        queries.close()


def check_exposure(settings: Settings) -> Auth:
    """Refuse to start where strangers could act; returns what needs a token.

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
    return auth_of(settings)


def _warnings(settings: Settings, tls: bool) -> Iterator[str]:
    tls = tls or (settings.external_url or "").startswith("https://")
    if not is_loopback(settings.host) and not tls:
        yield "tokens travel in clear text: configure TLS with --web-config-file, or a proxy and external_url"
    if settings.proxy_hops and not settings.trusted_proxies and not is_loopback(settings.host):
        yield (
            "whoever reaches this port can say that a request comes from elsewhere: name the proxies in "
            "trusted_proxies"
        )
    if auth_of(settings) is Auth.NONE:
        yield "auth: none: every user of this machine can stop and restart nodes"
    if settings.exporter.runtime.reply_port == settings.reply_port != EXPORTER_REPLY_PORT:
        yield "the exporter is configured for the same reply port: give the control API another reply_port"
    unchecked = sorted(settings.unchecked_hosts())
    if unchecked:
        yield (
            f"host_keys is off for {', '.join(unchecked)}: whoever is in the middle can act as the node; use "
            "accept-new"
        )


def _add_audit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["verify"], help="check that no line was changed or taken out")
    parser.add_argument("file", type=Path, metavar="FILE", help="the audit log")


def _audit(args: argparse.Namespace) -> int:
    try:
        with args.file.open("rb") as lines:
            found = problems(lines)
    except OSError as error:
        sys.stderr.write(f"clio-control-api: cannot read {args.file}: {error.strerror or error}\n")
        return 2
    for problem in found[:100]:
        sys.stdout.write(f"{args.file}: {problem}\n")
    sys.stdout.write(f"{args.file}: {f'{len(found)} problems' if found else 'the chain is whole'}\n")
    return 1 if found else 0


COMMANDS: Final = {
    "token": Command("make a token, or list those there are", lambda: (add_arguments, token_command)),
    "audit": Command("`audit verify FILE` checks an audit log", lambda: (_add_audit, _audit)),
    "completion": commands.completion(whole_parser),
}
