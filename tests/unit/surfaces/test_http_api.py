"""The HTTP API: every route, its errors, and who may call it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

import support_views as views
from cohort.base.errors import CohortError, Retry
from cohort.surfaces.http.app import create_app
from cohort.surfaces.http.edge import Edge
from cohort.surfaces.http.ports import Part
from support_delivery import ADMIN_KEY, VIEWER_KEY, House, house

RUNNING = "ro_k3v9q2m7x4c8b5nt"
ENDED = "ro_h7w2p9d4s6f3j8ka"
ADMIN = {"Authorization": f"Bearer {ADMIN_KEY}"}
VIEWER = {"Authorization": f"Bearer {VIEWER_KEY}"}


@pytest.fixture
def home() -> House:
    return house()


@pytest.fixture
def client(home: House) -> Iterator[TestClient]:
    with TestClient(create_app(home.control), base_url="http://127.0.0.1:8710", raise_server_exceptions=False) as made:
        yield made


@pytest.fixture(scope="module")
def unchanged() -> Iterator[TestClient]:
    """One application for the tests that change nothing."""
    with TestClient(create_app(house().control), base_url="http://127.0.0.1:8710", raise_server_exceptions=False) as made:
        yield made


READS = [
    ("/services", lambda body: [item["name"] for item in body["items"]] == ["billing", "support"]),
    ("/services/support", lambda body: body["rollout"]["id"] == RUNNING and body["stable"]["version"] == "v1"),
    ("/releases", lambda body: len(body["items"]) == 3),
    ("/releases?service=billing", lambda body: [item["version"] for item in body["items"]] == ["v1"]),
    ("/releases/v2?service=support", lambda body: body["manifest"]["routes"]["main"]["model"] == "big"),
    (f"/releases/{views.digest('support@v2')[:16]}", lambda body: body["version"] == "v2"),
    ("/services/support/routing", lambda body: body["policy"]["strong"] == "big" and body["state"]["drift"] == 0.03),
    ("/services/support/routing/fit", lambda body: body["better"] is True),
    ("/services/support/cache", lambda body: body["figures"]["hits"]["count"] == 2270 and len(body["figures"]["tiers"]) == 3),
    ("/flags", lambda body: body["items"] == [] and "routing.adaptive" in body["gateway"]),
    ("/plans", lambda body: [stage["traffic_pct"] for stage in body["items"][0]["stages"]] == [0, 5, 25, 100]),
    ("/rollouts", lambda body: len(body["items"]) == 3 and body["next"] is None),
    ("/rollouts?active=true", lambda body: [item["id"] for item in body["items"]] == [RUNNING]),
    (f"/rollouts/{RUNNING}", lambda body: body["state"] == "running" and body["gates"][0]["verdict"] == "not_yet"),
    ("/rollouts/support", lambda body: body["id"] == RUNNING),
    (f"/rollouts/{RUNNING}/replay", lambda body: body["identical"] is True),
]


@pytest.mark.parametrize(("path", "holds"), READS)
def test_a_viewer_can_read_everything(unchanged: TestClient, path: str, holds: object) -> None:
    answer = unchanged.get("/api/v1" + path, headers=VIEWER)
    assert answer.status_code == 200, answer.text
    assert holds(answer.json()), answer.text  # type: ignore[operator]


@pytest.mark.parametrize("path", [path for path, _ in READS])
def test_nothing_is_read_without_a_key(unchanged: TestClient, path: str) -> None:
    for headers, code in (
        ({}, "NOT_SIGNED_IN"),
        ({"Authorization": "Bearer ck_wrong"}, "KEY_INVALID"),
        ({"Authorization": "Basic x"}, "KEY_INVALID"),
    ):
        answer = unchanged.get("/api/v1" + path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, code)
        assert answer.headers["www-authenticate"].startswith("Bearer")


PUBLIC = {"/health", "/ready", "/status", "/metrics", "/api/v1/openapi.json", "/login", "/favicon.ico", "/static/{name}"} | {
    "/api/v1/oauth/token",
    "/api/v1/oauth/revoke",
    "/.well-known/jwks.json",
    "/.well-known/oauth-authorization-server",
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-protected-resource/mcp",
}
"""What needs no key, as docs/reference/http-api.md says: health, the page to sign in on, and how agents get tokens."""


def every_route(routes: Iterable[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(method, path template) of everything an application answers, routers within routers included."""
    for route in routes:
        inside = getattr(route, "original_router", None)
        if inside is not None:
            yield from every_route(inside.routes, prefix + route.include_context.prefix)
        else:
            yield from ((method, prefix + route.path) for method in route.methods)


def test_whatever_is_not_documented_as_public_is_refused_without_a_key(unchanged: TestClient) -> None:
    assert isinstance(unchanged.app, FastAPI)
    found = set(every_route(unchanged.app.routes))
    assert {path for _, path in found} >= PUBLIC | {
        "/",
        "/services/{name}",
        "/api/v1/rollouts/{rollout}/{verb}",
        "/live/rollouts/{rollout}",
    }
    for method, template in sorted(found):
        path = template.replace("{verb}", "pause").replace("{name}", "support").replace("{rollout}", RUNNING)
        path = re.sub(r"\{\w+\}", "v2", path)
        if template not in PUBLIC:
            for headers in ({}, {"cookie": "cohort_session=made-up"}, {"Authorization": "Bearer ck_wrong"}):
                answer = unchanged.request(method, path, headers=headers, json={} if path.startswith("/api") else None)
                assert answer.status_code == 401, (method, path, headers, answer.status_code)


CHANGES = [
    ("/releases", {"source": "r.yaml", "manifest": "version: v9", "files": {"p.md": "hello"}}, 201),
    ("/releases", {"source": "r.yaml", "manifest": "version: v2"}, 200),
    ("/rollouts", {"service": "billing", "to": "v2", "plan": "shadow-5-25-100"}, 201),
    ("/services/support/rollback", {"reason": "users complain"}, 200),
    *(
        (f"/rollouts/{RUNNING}/{verb}", {"reason": "because", "revision": 4}, 200)
        for verb in ("pause", "approve", "promote", "rollback", "abort")
    ),
    (f"/rollouts/{RUNNING}/pause", None, 200),
    ("/flags/kill", {"flag": "shadow", "reason": "load"}, 200),
    ("/gateway/erase", {"subject": "anna"}, 200),
]


@pytest.mark.parametrize(("path", "body", "status"), CHANGES)
def test_an_admin_can_change_and_a_viewer_cannot(client: TestClient, home: House, path: str, body: object, status: int) -> None:
    refused = client.post("/api/v1" + path, json=body, headers=VIEWER)
    assert (refused.status_code, refused.json()["code"]) == (403, "ROLE_TOO_LOW")
    assert not home.rollouts.acts
    assert not home.rollouts.starts
    answer = client.post("/api/v1" + path, json=body, headers=ADMIN)
    assert answer.status_code == status, answer.text


def test_the_actor_is_the_name_of_the_key_and_the_idempotency_key_is_handed_on(client: TestClient, home: House) -> None:
    headers = ADMIN | {"Idempotency-Key": "once-1"}
    first = client.post(f"/api/v1/rollouts/{RUNNING}/pause", json={"reason": "lunch"}, headers=headers)
    again = client.post(f"/api/v1/rollouts/{RUNNING}/pause", json={"reason": "lunch"}, headers=headers)
    assert first.json() == again.json()
    ((verb, rollout, act),) = home.rollouts.acts
    assert (verb, rollout, act.actor, act.reason, act.idempotency_key) == ("pause", RUNNING, "first-key", "lunch", "once-1")


def test_a_start_is_handed_on_whole(client: TestClient, home: House) -> None:
    body = {"service": "billing", "to": "v2", "plan": "shadow-5-25-100", "speed": 720, "at_pct": 5, "strict": True, "reason": "cheaper"}
    answer = client.post("/api/v1/rollouts", json=body, headers=ADMIN)
    (start,) = home.rollouts.starts
    assert (start.speed, start.at_pct, start.strict, start.act.reason) == (720.0, 5.0, True, "cheaper")
    assert answer.headers["location"] == f"/api/v1/rollouts/{answer.json()['id']}"


def test_a_forecast_says_what_the_plan_can_see(unchanged: TestClient) -> None:
    body = {"service": "support", "plan": "shadow-5-25-100", "units_per_s": 4}
    assert unchanged.post("/api/v1/rollouts/plan", json=body, headers=VIEWER).json()["stages"][0]["smallest_ratio"] == 2.4


def test_pages_of_rollouts_follow_their_cursor(unchanged: TestClient) -> None:
    seen, cursor = [], ""
    while True:
        page = unchanged.get(f"/api/v1/rollouts?limit=1{cursor}", headers=ADMIN).json()
        seen += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert len(seen) == len(set(seen)) == 3


PROBLEMS = [
    ("GET", "/api/v1/services/nobody", None, 404, "SERVICE_UNKNOWN", None),
    ("GET", "/api/v1/releases/v77", None, 404, "RELEASE_UNKNOWN", None),
    ("GET", "/api/v1/rollouts/ro_none", None, 404, "ROLLOUT_UNKNOWN", None),
    ("GET", "/api/v1/rollouts/ro_none/events", None, 404, "ROLLOUT_UNKNOWN", None),
    ("GET", "/api/v1/rollouts?limit=0", None, 422, "FIELD_INVALID", "limit"),
    ("GET", "/api/v1/rollouts?cursor=abc", None, 422, "FIELD_INVALID", "cursor"),
    ("GET", "/api/v1/rollouts?cursor=9223372036854775808", None, 422, "FIELD_INVALID", "cursor"),
    ("GET", "/rollouts?before=9223372036854775808", None, 422, "FIELD_INVALID", "before"),
    ("GET", "/api/v1/nothing", None, 404, "NOT_FOUND", None),
    ("DELETE", "/api/v1/services", None, 405, "METHOD_NOT_ALLOWED", None),
    ("POST", "/api/v1/rollouts", {"service": "support"}, 422, "FIELD_INVALID", "to"),
    ("POST", "/api/v1/rollouts", {"service": "billing", "to": "v2", "plan": "p", "sped": 2}, 422, "FIELD_INVALID", "sped"),
    ("POST", "/api/v1/rollouts", {"service": "billing", "to": "v2", "plan": "p", "speed": 0}, 422, "FIELD_INVALID", "speed"),
    ("POST", "/api/v1/rollouts", {"service": "support", "to": "v2", "plan": "p"}, 409, "ROLLOUT_ACTIVE", None),
    ("POST", "/api/v1/rollouts/plan", {"service": "support", "plan": "none"}, 404, "PLAN_UNKNOWN", None),
    ("POST", "/api/v1/releases", {"source": "r.yaml", "manifest": "kind: model"}, 422, "DOCUMENT_INVALID", "version"),
    ("POST", "/api/v1/services/support/rollback", {}, 422, "FIELD_INVALID", "reason"),
    ("POST", f"/api/v1/rollouts/{ENDED}/pause", {}, 409, "ROLLOUT_ENDED", None),
    ("POST", f"/api/v1/rollouts/{RUNNING}/pause", {"revision": 1}, 409, "ROLLOUT_CHANGED", None),
    ("POST", f"/api/v1/rollouts/{RUNNING}/resume", {}, 409, "ROLLOUT_NOT_PAUSED", None),
    ("POST", f"/api/v1/rollouts/{RUNNING}/explode", {}, 422, "FIELD_INVALID", "verb"),
    ("POST", f"/api/v1/rollouts/{RUNNING}/pause", {"reason": "x" * 2001}, 422, "FIELD_INVALID", "reason"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "code", "field"), PROBLEMS)
def test_every_refusal_is_a_problem_document(
    unchanged: TestClient, method: str, path: str, body: object, status: int, code: str, field: str | None
) -> None:
    answer = unchanged.request(method, path, json=body, headers=ADMIN)
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["code"], problem.get("field")) == (status, status, code, field), problem
    assert problem["hint"]
    assert problem["detail"]


def test_invalid_json_names_itself(unchanged: TestClient) -> None:
    answer = unchanged.post("/api/v1/rollouts", content=b"{nope", headers=ADMIN | {"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "DOCUMENT_INVALID")


def test_a_body_that_is_too_large_is_refused_with_or_without_a_declared_length(client: TestClient, home: House) -> None:
    def pieces() -> Iterator[bytes]:
        yield from [b"x" * 65536] * 20

    for content in (b"x" * (1 << 20) + b"y", pieces()):
        answer = client.post("/api/v1/rollouts", content=content, headers=ADMIN)
        assert (answer.status_code, answer.json()["code"]) == (413, "FILE_TOO_LARGE")
    assert not home.rollouts.starts


def test_a_release_may_bring_larger_files(client: TestClient, home: House) -> None:
    body = {"source": "r.yaml", "manifest": "version: v9", "files": {"p.md": "x" * (3 << 20)}}
    assert client.post("/api/v1/releases", json=body, headers=ADMIN).status_code == 201
    assert len(home.registry.bundles[0].files["p.md"]) == 3 << 20


def test_an_unforeseen_error_tells_nothing_of_the_inside(home: House) -> None:
    def broken() -> tuple[Part, ...]:
        raise ZeroDivisionError("secret detail")

    object.__setattr__(home.control, "parts", broken)
    with TestClient(create_app(home.control), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        answer = client.get("/ready")
    assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL")
    assert "secret" not in answer.text


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil:8700", ""])
def test_another_name_in_the_host_header_is_refused(unchanged: TestClient, host: str) -> None:
    answer = unchanged.get("/health", headers={"host": host})
    assert (answer.status_code, answer.json()["code"]) == (421, "HOST_REFUSED")


@pytest.mark.parametrize("host", ["localhost:8700", "127.0.0.1", "[::1]:8700", "LOCALHOST"])
def test_the_names_of_loopback_are_answered(unchanged: TestClient, host: str) -> None:
    assert unchanged.get("/health", headers={"host": host}).status_code == 200


def test_every_answer_carries_the_security_headers(unchanged: TestClient) -> None:
    for path in ("/health", "/api/v1/nothing", "/api/v1/services"):
        headers = unchanged.get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"


def test_health_ready_and_status_need_no_key_and_say_which_part_is_not_well(client: TestClient, home: House) -> None:
    assert client.get("/health").json() == {"alive": True}
    assert client.get("/ready").status_code == 200
    home.parts[2] = Part("gateway", False, "no answer from 127.0.0.1:8710")
    answer = client.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["parts"][2] == {"name": "gateway", "ok": False, "detail": "no answer from 127.0.0.1:8710"}
    assert client.get("/health").status_code == 200
    status = client.get("/status").json()
    assert (status["ready"], status["services"], status["rollouts_active"]) == (False, 2, 1)


def test_a_read_only_audit_log_leaves_control_ready_and_is_said(client: TestClient, home: House) -> None:
    home.parts.append(Part("audit log", False, "it is read-only"))
    answer = client.get("/ready")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)
    assert answer.json()["parts"][-1]["ok"] is False


def test_a_part_that_was_never_looked_at_is_not_ready(client: TestClient, home: House) -> None:
    home.parts.clear()
    assert client.get("/ready").status_code == 503


def test_metrics_show_rollouts_evidence_ingest_and_requests(client: TestClient) -> None:
    client.get("/api/v1/services", headers=ADMIN)
    text = client.get("/metrics").text
    assert 'cohort_rollouts{state="running"} 1.0' in text
    assert 'cohort_rollouts{state="rolled_back"} 1.0' in text
    assert f'cohort_gate_log_e{{gate="failures",rollout="{RUNNING}",service="support",towards="safe"}} 2.2' in text
    assert "cohort_outcomes_taken_total 20115.0" in text
    assert "cohort_ingest_lag_seconds 0.4" in text
    assert "cohort_outcomes_damages_total 3.0" in text
    assert "cohort_outcomes_waiting_bytes 512.0" in text
    assert 'cohort_http_requests_total{method="GET",status="200"} 1.0' in text
    assert "cohort_collect_ok 1.0" in text


def test_a_database_that_does_not_answer_is_said_and_not_counted_as_nothing(client: TestClient, home: House) -> None:
    home.rollouts.down = CohortError("DATABASE_UNAVAILABLE", "no answer", retry=Retry.SAFE, hint="Look at the database.")
    text = client.get("/metrics").text
    assert "cohort_collect_ok 0.0" in text
    assert "cohort_rollouts{" not in text
    assert client.get("/status").json()["services"] is None
    answer = client.get("/api/v1/services", headers=ADMIN)
    assert (answer.status_code, answer.json()["retry"], answer.headers["retry-after"]) == (503, "safe", "1")


async def _send_through(edge: Edge, messages: list[Message]) -> list[Message]:
    """A change sent to `edge` piece by piece; after the last piece the client stays and is silent."""
    answered: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0) if messages else await asyncio.Future()

    async def send(message: Message) -> None:
        answered.append(message)

    scope = {"type": "http", "method": "POST", "path": "/api/v1/rollouts", "headers": [(b"host", b"localhost")]}
    await edge(scope, receive, send)
    return answered


async def _never(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("half a body reached the application")


def test_half_a_body_is_no_request() -> None:
    edge = Edge(_never, frozenset({"localhost"}), lambda method, status: None)
    pieces = [{"type": "http.request", "body": b'{"service"', "more_body": True}, {"type": "http.disconnect"}]
    assert asyncio.run(_send_through(edge, pieces)) == []


def test_a_body_that_never_ends_is_not_waited_for() -> None:
    edge = Edge(_never, frozenset({"localhost"}), lambda method, status: None, body_read_s=0.01)
    answered = asyncio.run(_send_through(edge, [{"type": "http.request", "body": b"{", "more_body": True}]))
    assert answered[0]["status"] == 408
    assert b"BODY_SLOW" in answered[1]["body"]


def test_a_person_who_could_not_be_forgotten_everywhere_is_said_to_be_so(client: TestClient, home: House) -> None:
    home.caches.stuck = True
    answer = client.post("/api/v1/gateway/erase", json={"unit": "ab" * 16}, headers=ADMIN)
    assert (answer.status_code, answer.json()["code"], answer.json()["retry"]) == (503, "CACHE_NOT_ERASED", "safe")
    assert [row["erased"] for row in answer.json()["details"]["stores"]] == [3, None]
    for body in ({"unit": "anna"}, {"subject": ""}, {"unit": "AB" * 16}, {"subject": "a" * 1025}):
        assert client.post("/api/v1/gateway/erase", json=body, headers=ADMIN).status_code == 422
