"""Bodies of requests."""

from __future__ import annotations

import json
from typing import Any

from flask import request

from clio_control_api.errors import BadRequest


def json_object() -> dict[str, Any]:
    """The object that a request's body is.

    Raises:
        BadRequest: it is something else.
    """
    if request.mimetype != "application/json":
        raise BadRequest("send an object as JSON, with the header Content-Type: application/json")
    try:
        found = json.loads(request.get_data(cache=True))
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadRequest("the body is JSON, but not an object")
    return found
