"""Errors that become answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class ApiError(Exception):
    """An answer other than success: status code, the `error` text, further fields.

    Attributes:
        written: whether the audit log has it already.
    """

    status: ClassVar[int] = 500

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.fields: Mapping[str, Any] = fields
        self.headers: dict[str, str] = {}
        self.written = False


class BadRequest(ApiError):  # noqa: N818 - named after the status
    """The request's text or form is not acceptable."""

    status = 400


class Unauthorized(ApiError):  # noqa: N818
    """No token, or one that is not known."""

    status = 401


class Forbidden(ApiError):  # noqa: N818
    """Known, but may not do this; or a browser was led here by another site."""

    status = 403


class NotFound(ApiError):  # noqa: N818
    """There is no such thing."""

    status = 404


class Conflict(ApiError):  # noqa: N818
    """Another action is under way on the node."""

    status = 409


class TooManyRequests(ApiError):  # noqa: N818
    """The client asks too often."""

    status = 429


class Unavailable(ApiError):  # noqa: N818
    """The runtime, or this service, cannot do it now."""

    status = 503
