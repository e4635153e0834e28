"""Values of delivery as JSON. Fields are only ever added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response


def to_json(value: Any) -> bytes:
    """Dataclasses, enums, mappings and tuples as JSON; a NaN becomes null."""
    return orjson.dumps(value, default=_plain)


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(to_json(value), status_code=status, headers=dict(headers or {}), media_type="application/json")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
