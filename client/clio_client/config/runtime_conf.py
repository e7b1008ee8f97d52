"""The runtime's own configuration file: where it is, what in it matters here, and all of it flattened.

Search order and meaning follow the runtime (`ConfigManager` of clio-core and the wheels' `_config.py`).
Unknown and legacy keys are fine.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clio_client.address import DEFAULT_PORT, MAX_PORT, port_number
from clio_client.config import yamltree
from clio_client.config.errors import ConfigError, quoted
from clio_client.config.files import exists, read_text

__all__ = [
    "ComposedPool", "RuntimeConfig", "find_runtime_config", "load_runtime_config", "parse_runtime_config",
    "flatten", "port_from_env",
]  # fmt: skip

CONFIG_VARIABLES = ("CLIO_SERVER_CONF", "CHI_SERVER_CONF", "WRP_RUNTIME_CONF")
CONFIG_FILES = (".clio/clio.yaml", ".clio/chimaera.yaml", ".chimaera/clio.yaml", ".chimaera/chimaera.yaml")
PORT_VARIABLES = ("CLIO_PORT", "CHI_PORT")
MAX_CONFIG_BYTES = 1024 * 1024
MAX_VALUE_CHARACTERS = 256
MAX_KEY_CHARACTERS = 128
MAX_ENTRIES = 2000

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_PLAIN_KEY = re.compile(r"[^\s.\[\]\"]+")


@dataclass(frozen=True, slots=True)
class ComposedPool:
    """One entry of the `compose` section; what the file does not say is "" or None. `raw` is all of it."""

    mod_name: str
    pool_name: str
    pool_id: str
    pool_query: str
    next_pool_id: str | None
    bdev_type: str | None
    capacity: str | None
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """A runtime configuration file.

    `document` is the whole file with secrets in clear; `known_keys.publishable` is what may be shown of it.
    `port` is the base port, with CLIO_PORT or CHI_PORT of the environment before the file's.
    """

    path: Path
    document: Mapping[str, Any]
    port: int
    hostfile: Path | None
    compose: list[ComposedPool]


def find_runtime_config(env: Mapping[str, str], home: Path) -> Path | None:
    """The configuration file the runtime would read, None when there is none.

    First the variables CLIO_SERVER_CONF, CHI_SERVER_CONF, WRP_RUNTIME_CONF (an empty one counts as unset),
    then ~/.clio/clio.yaml, ~/.clio/chimaera.yaml, ~/.chimaera/clio.yaml, ~/.chimaera/chimaera.yaml.
    Raises `ConfigError` when a variable names a file that does not exist.
    """
    for variable in CONFIG_VARIABLES:
        value = env.get(variable, "")
        if value:
            path = expand_path(value, env, home)
            if not exists(path):
                raise ConfigError(
                    path,
                    f"{variable} names this file and it does not exist",
                    f"Correct or unset {variable}",
                )
            return path
    return next((home / name for name in CONFIG_FILES if exists(home / name)), None)


def load_runtime_config(
    path: str | Path, env: Mapping[str, str] | None = None, home: Path | None = None
) -> RuntimeConfig:
    """Read a runtime configuration file of at most 1 MiB; `env` and `home` default to the process's own.

    A relative `networking.hostfile` is looked for beside the file, then in the working directory (where
    the runtime looks). Raises `ConfigError`.
    """
    path = Path(path)
    text = read_text(path, "runtime configuration", MAX_CONFIG_BYTES)
    env = os.environ if env is None else env
    home = Path.home() if home is None else home
    config = parse_runtime_config(text, path, env, home)
    if config.hostfile is not None and not exists(config.hostfile):
        name = expand_path(str(_networking(config.document).get("hostfile")), env, home)
        if not name.is_absolute() and exists(name):
            return RuntimeConfig(path, config.document, config.port, name.absolute(), config.compose)
    return config


def parse_runtime_config(text: str, path: Path, env: Mapping[str, str], home: Path) -> RuntimeConfig:
    """`text` as a runtime configuration; `path` names it in errors and anchors a relative hostfile."""
    root = yamltree.compose(text, str(path))
    document = yamltree.construct(root, str(path))
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigError(
            path,
            "the file is not a YAML mapping",
            "Begin it with sections such as 'networking:' and 'compose:'",
            line=1,
        )
    port = port_from_env(env)
    if port is None:
        port = _file_port(document, root, path)
    hostfile = _networking(document).get("hostfile")
    return RuntimeConfig(
        path=path,
        document=document,
        port=port,
        hostfile=path.parent.absolute() / expand_path(str(hostfile), env, home) if hostfile else None,
        compose=[_pool(entry) for entry in _list(document.get("compose")) if isinstance(entry, dict)],
    )


def port_from_env(env: Mapping[str, str]) -> int | None:
    """The base port that CLIO_PORT (or the older CHI_PORT) sets, None without. Raises `ConfigError`."""
    for variable in PORT_VARIABLES:
        if env.get(variable):
            port = _port(env[variable])
            if port is None:
                raise ConfigError(
                    variable,
                    f"{quoted(env[variable])} is not a port from 1 to {MAX_PORT}",
                    f"Set {variable} to the runtime's base port or unset it",
                )
            return port
    return None


def expand_path(text: str, env: Mapping[str, str], home: Path) -> Path:
    """`text` as a path with ${VARIABLE} (unset: empty, as in the runtime) and a leading ~ expanded."""
    text = _VARIABLE.sub(lambda match: env.get(match[1], ""), text)
    if text == "~" or text.startswith("~/"):
        return home / text[2:]
    return Path(text)


def flatten(document: Any) -> list[tuple[str, str]]:
    """(path, value) of every scalar in document order, such as ("compose[0].mod_name", "clio_bdev").

    A key with a dot, bracket, quote or white space is written as ["key"]. Scalars are written as YAML
    would: true, false, null, numbers as in the file; empty collections as {} and []. Values are cut at 256
    characters, keys at 128, the last of them an ellipsis; no pair occurs twice. After 2000 pairs one pair
    ("...", note) ends the list. It hides nothing: see `known_keys.publishable`.
    """
    pairs: dict[tuple[str, str], None] = {}
    left_out = 0
    for pair in _walk("", document):
        if len(pairs) < MAX_ENTRIES:
            pairs[pair] = None
        elif pair not in pairs:
            left_out += 1
    if left_out:
        pairs["...", f"{left_out} more entries are not shown"] = None
    return list(pairs)


def _walk(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from _walk(_join(path, key), below)
    elif isinstance(value, (list, tuple)) and value:
        for index, below in enumerate(value):
            yield from _walk(f"{path}[{index}]", below)
    elif isinstance(value, (set, frozenset)) and value:
        yield from _walk(path, sorted(value, key=str))
    else:
        yield path, _cut(_scalar(value), MAX_VALUE_CHARACTERS)


def _join(path: str, key: Any) -> str:
    text = _cut(_scalar(key), MAX_KEY_CHARACTERS)
    if not _PLAIN_KEY.fullmatch(text):
        return f"{path}[{json.dumps(text, ensure_ascii=False)}]"
    return f"{path}.{text}" if path else text


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return "[]"
    if isinstance(value, (yamltree.WrittenInt, yamltree.WrittenFloat)):
        return value.text
    # A lone surrogate ("\\ud800" in YAML) cannot be encoded for anyone.
    return str(value).encode("utf-8", "replace").decode("utf-8")


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _networking(document: Mapping[str, Any]) -> Mapping[str, Any]:
    section = document.get("networking")
    return section if isinstance(section, dict) else {}


def _file_port(document: Mapping[str, Any], root: yaml.Node | None, path: Path) -> int:
    value = _networking(document).get("port")
    if value is None:
        return DEFAULT_PORT
    port = _port(value)
    if port is None:
        node = yamltree.child(root, "networking", "port")
        raise ConfigError(
            path,
            f"networking.port is {quoted(_scalar(value))}, not a port from 1 to {MAX_PORT}",
            f"Give the runtime's base port, by default {DEFAULT_PORT}",
            line=None if node is None else yamltree.line_of(node),
        )
    return port


def _port(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    return port_number(str(int(value)) if isinstance(value, int) else value.strip(), high=MAX_PORT)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _pool(entry: dict[str, Any]) -> ComposedPool:
    def text(key: str) -> str | None:
        value = entry.get(key)
        return None if value is None else _scalar(value)

    return ComposedPool(
        mod_name=text("mod_name") or "",
        pool_name=text("pool_name") or "",
        pool_id=text("pool_id") or "",
        pool_query=text("pool_query") or "",
        next_pool_id=text("next_pool_id"),
        bdev_type=text("bdev_type"),
        capacity=text("capacity"),
        raw=entry,
    )
