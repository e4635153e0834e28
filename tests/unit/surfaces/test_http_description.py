"""The written description of the API is what the code answers."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from starlette.testclient import TestClient

from cohort.surfaces.http.app import create_app
from cohort.surfaces.http.openapi import openapi_bytes
from support_delivery import house

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"
PATHS = orjson.loads(openapi_bytes())["paths"]


def test_the_committed_description_is_current() -> None:
    hint = "run `python -m cohort.surfaces.http.openapi > docs/reference/openapi.json`"
    assert (REFERENCE / "openapi.json").read_bytes() == openapi_bytes(), hint


def test_a_running_control_serves_the_same_description() -> None:
    with TestClient(create_app(house().control), base_url="http://127.0.0.1") as client:
        assert client.get("/api/v1/openapi.json").json() == orjson.loads(openapi_bytes())


@pytest.mark.parametrize("path", PATHS)
def test_every_route_is_in_the_reference(path: str) -> None:
    assert path in (REFERENCE / "http-api.md").read_text()


def test_every_route_under_the_prefix_wants_a_key_and_answers_with_problems() -> None:
    for path, operations in PATHS.items():
        for operation in operations.values():
            assert operation["summary"]
            if path in ("/api/v1/approvals/reply", "/api/v1/oauth/token", "/api/v1/oauth/revoke"):
                assert "security" not in operation
            elif path.startswith("/api/v1"):
                by_token = path in ("/api/v1/actions", "/api/v1/approvals/{approval}/withdraw")
                assert operation["security"] == ([{"token": []}] if by_token else [{"key": []}, {"session": []}])
                assert list(operation["responses"]["default"]["content"]) == ["application/problem+json"]
