"""Other services over HTTP: every wait bounded, no redirect followed, no failure raised."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from clio_client.config.errors import ConfigError
from clio_client.config.fields import Field
from clio_client.config.files import read_text

Labels = dict[str, str]
Vector = list[tuple[Labels, float]]
Matrix = list[tuple[Labels, list[tuple[float, float]]]]

_MAX_TOKEN: Final = 4096
_LATEST: Final = 2.0**40
"""Seconds; what is beyond is the time of nothing."""
MAX_BYTES: Final = 64 * 1024 * 1024
"""Of an answer: that of an exporter of 4,096 nodes is 40 MB."""


def service_url(value: Field) -> str:
    """The base address of a service, without a slash at its end."""
    text = value.text().rstrip("/")
    try:
        parts = urllib.parse.urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
    except ValueError:  # brackets around what is no IPv6 address
        usable = False
    if not usable:
        raise value.refusal("not the address of a service", "Write it as http://host:port")
    if parts.username is not None or parts.password is not None:
        raise value.error(
            "has a user or password in it, which others on this host can see",
            "Leave it out, and give a token in a file",
        )
    return text


def service_token(file: Path | None) -> str:
    """The token that the file has, "" without a file. Raises `ConfigError`."""
    token = read_text(file, "token file", _MAX_TOKEN).strip() if file else ""
    if not token.isascii() or not token.isprintable():
        raise ConfigError(str(file), "is not a token", "Write the token alone, on one line")
    return token


class OddAnswerError(ValueError):
    """A service did not grant what was asked for, or its answer is not of the form that it documents."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status of HTTP and the body; or `problem`, why nothing did."""

    status: int = 0
    body: bytes = b""
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether the request was granted."""
        return self.status == 200

    @property
    def document(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def data(self) -> Mapping[str, Any]:
        """`data` of an answer of Prometheus's API, empty where it is none."""
        document = self.document
        data = document.get("data") if isinstance(document, dict) else None
        return data if isinstance(data, dict) else {}

    def rows(self, name: str) -> list[Mapping[str, Any]] | None:
        """The list of objects that `data` has under a name, others left out; None where it has no list."""
        found = self.data.get(name)
        return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else None

    @property
    def error(self) -> str:
        """What Prometheus says is wrong, or what came instead of an answer."""
        document = self.document
        return str(document.get("error", self)) if isinstance(document, dict) else str(self)

    def scalar(self) -> float:
        """The number that an expression has. Raises `OddAnswerError`."""
        return _sample(self._granted.data.get("result"))[1]

    def vector(self) -> Vector:
        """Series with a value each. Raises `OddAnswerError`."""
        return [(_labels(row), _sample(row.get("value"))[1]) for row in self._series()]

    def matrix(self) -> Matrix:
        """Series with their samples: Unix time in seconds, and value. Raises `OddAnswerError`."""
        found = []
        for row in self._series():
            values = row.get("values")
            if not isinstance(values, list):
                raise OddAnswerError("a series has no list of values")
            found.append((_labels(row), [_sample(value) for value in values]))
        return found

    @property
    def _granted(self) -> Answer:
        if not self.ok:
            raise OddAnswerError(self.error)
        return self

    def _series(self) -> list[Mapping[str, Any]]:
        rows = self._granted.rows("result")
        if rows is None:
            raise OddAnswerError("the answer has no list of series")
        return rows

    def __str__(self) -> str:
        return self.problem or f"HTTP status {self.status}"


def text_labels(found: object) -> Labels:
    """Labels that are texts; nothing of what are none."""
    items = found.items() if isinstance(found, dict) else ()
    return {str(name): value for name, value in items if isinstance(value, str)}


def _labels(row: Mapping[str, Any]) -> Labels:
    return text_labels(row.get("metric"))


def _sample(pair: Any) -> tuple[float, float]:
    """A time and a value, which Prometheus writes as a text. NaN and infinity are values."""
    try:
        at, value = pair
        found = float(at), float(value)
    except (ValueError, TypeError, OverflowError):
        raise OddAnswerError("a value is not a pair of time and number") from None
    if not abs(found[0]) < _LATEST:
        raise OddAnswerError("a value has no time")
    return found


def rules_by_name(answer: Answer) -> dict[str, Mapping[str, Any]]:
    """The rules of an answer of Prometheus that tells them."""
    found: dict[str, Mapping[str, Any]] = {}
    for group in answer.rows("groups") or ():
        rules = group.get("rules")
        for rule in rules if isinstance(rules, list) else ():
            if isinstance(rule, dict) and isinstance(rule.get("name"), str):
                found[rule["name"]] = rule
    return found


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: a token must not go to another host."""

    def redirect_request(self, *_args: Any, **_more: Any) -> None:
        """No other request."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service at a base address; `token` goes along as a bearer's where there is one."""

    url: str
    seconds: float
    token: str = ""

    def get(self, path: str, **query: str | Sequence[str]) -> Answer:
        """GET below the base address; never raises for what the service does."""
        where = self.url + path + (f"?{urllib.parse.urlencode(query, doseq=True)}" if query else "")
        return self._ask(where, None, {"Accept": "application/json, text/plain"})

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """POST below the base address; never raises for what the service does."""
        return self._ask(self.url + path, body, headers)

    def _ask(self, where: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        own = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        opener = urllib.request.build_opener(_Stay, urllib.request.ProxyHandler({}))
        try:
            request = urllib.request.Request(where, body, {**headers, **own})  # noqa: S310 - http or https: service_url
            with opener.open(request, timeout=self.seconds) as answer:
                return Answer(answer.status, answer.read(MAX_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read(MAX_BYTES))
        except urllib.error.URLError as error:
            return Answer(problem=str(error.reason))
        except (OSError, http.client.HTTPException) as error:
            return Answer(problem=str(error) or type(error).__name__)
