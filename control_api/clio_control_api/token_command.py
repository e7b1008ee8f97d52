"""`clio-control-api token`: makes a token, or lists those of a tokens file."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path
from typing import Final

from clio_client.config.errors import ConfigError
from clio_control_api.operator_token import add_line
from clio_control_api.principals import Role, Scope, parse_clusters, parse_nodes
from clio_control_api.settings import ENV_PREFIX, load, private_directory
from clio_control_api.tokens import (
    Token,
    digest_of,
    is_name,
    load_tokens,
    new_token,
    parse_time,
    time_text,
)

_SECONDS: Final = {"h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"([0-9]{1,5})([hdw])", re.ASCII)
_HEADINGS: Final = ("NAME", "ROLE", "HASH", "EXPIRES", "CLUSTERS", "NODES")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `token`."""
    parser.description = (
        "Makes a token, which is shown once, on standard error. "
        "Standard output has the line for the tokens file; with --add it is added there."
    )
    parser.set_defaults(refuse=parser.error)
    parser.add_argument("name", nargs="?", help="who it is for; what the audit log shows")
    parser.add_argument("--role", choices=[role.name.lower() for role in Role], default="viewer")
    parser.add_argument(
        "--expires", metavar="WHEN", help="a day (2027-01-31), a time (2027-01-31T12:00:00Z), or 12h, 90d, 4w"
    )
    parser.add_argument(
        "--clusters", metavar="LIST", help="actions on nodes of these clusters only: lab,prod"
    )
    parser.add_argument("--nodes", metavar="LIST", help="actions on these nodes only: 1-20,33,gpu-*")
    parser.add_argument("--add", action="store_true", help="add it to the tokens file")
    parser.add_argument(
        "--list",
        action="store_true",
        help="list the tokens file instead: names and what they allow, no secrets",
    )
    parser.add_argument(
        "--tokens-file", metavar="FILE", type=Path, help="the tokens file, else that of the settings"
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="settings file of the service")


def token_command(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    try:
        if args.list:
            if args.name is not None:
                args.refuse("--list takes no name")
            return _list(_tokens_file(args))
        token = new_token()
        made = _made(args, token)
        if args.add:
            path = _tokens_file(args)
            if args.tokens_file is None:
                private_directory(path.parent)
            add_line(path, made.line)
    except ConfigError as error:
        sys.stderr.write(f"clio-control-api: {error}\n")
        return 1
    sys.stderr.write(f"token of {made.name} (not stored anywhere): {token}\n")
    if not args.add:
        sys.stdout.write(made.line + "\n")
    return 0


def _tokens_file(args: argparse.Namespace) -> Path:
    """The file that the service with these settings uses."""
    if args.tokens_file is not None:
        return Path(args.tokens_file)
    named = args.config or os.environ.get(f"{ENV_PREFIX}CONFIG")
    return load(Path(named) if named else None, {}, os.environ, Path.home()).tokens_path


def _made(args: argparse.Namespace, token: str) -> Token:
    if args.name is None:
        args.refuse("give the name of who the token is for, or --list")
    if not is_name(args.name):
        args.refuse("a name has 1 to 64 letters, digits, '_', '.', '@' and '-'")
    role = Role[args.role.upper()]
    if role < Role.OPERATOR and (args.clusters or args.nodes):
        args.refuse("--clusters and --nodes are about actions: they go with --role operator")
    try:
        scope = Scope(
            None if args.clusters is None else parse_clusters(args.clusters),
            None if args.nodes is None else parse_nodes(args.nodes),
        )
        expires = None if args.expires is None else _expiry(args.expires)
    except ValueError as error:
        args.refuse(str(error))
    return Token(args.name, role, digest_of(token), scope, expires)


def _expiry(text: str) -> float:
    match = _DURATION.fullmatch(text)
    when = parse_time(text) if match is None else time.time() + int(match[1]) * _SECONDS[match[2]]
    if when <= time.time():
        raise ValueError("expires= is in the past")
    return when


def _list(path: Path) -> int:
    parsed = load_tokens(path)
    rows = [_HEADINGS, *map(_row, parsed.tokens.values())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
    for problem in parsed.problems:
        sys.stderr.write(f"clio-control-api: does not count: {problem}\n")
    return 1 if parsed.problems else 0


def _row(token: Token) -> tuple[str, ...]:
    when = "never" if token.expires is None else time_text(token.expires)
    if token.expires is not None and token.expires <= time.time():
        when += " (expired)"
    scope = (token.scope.clusters, token.scope.nodes)
    if token.role < Role.OPERATOR:
        return (token.name, token.role.name.lower(), token.digest[:8], when, "", "")
    where = tuple("all" if parts is None else ",".join(parts) for parts in scope)
    return (token.name, token.role.name.lower(), token.digest[:8], when, *where)
