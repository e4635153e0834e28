"""The HTTP API about agents: every route, who may call it, and what refusals, waiting and repetitions look like."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from cohort.base.errors import CohortError, Retry
from cohort.kernel.actions.arguments import TOTAL_CHARS_MAX
from cohort.kernel.actions.schemas import CONTENT_CHARS_MAX
from cohort.kernel.face import Sign
from cohort.kernel.model import ApprovalState
from cohort.surfaces.http.app import create_app
from cohort.surfaces.http.edge import Edge
from cohort.surfaces.http.hands import Hands
from cohort.surfaces.http.ports import ACTION_BODY_BYTES_MAX, BODY_BYTES_MAX, LARGE_BODIES_AT_ONCE
from cohort.surfaces.http.repeats import Repeats
from cohort.surfaces.http.routes_actions import Lanes
from cohort.surfaces.http.routes_approvals import Waiters
from support_delivery import ADMIN_KEY, APPROVER_KEY, AUDITOR_KEY, MANAGER_KEY, OPERATOR_KEY, VIEWER_KEY, House, house
from support_kernel import asked

KEYS = {
    "admin": ADMIN_KEY,
    "manager": MANAGER_KEY,
    "operator": OPERATOR_KEY,
    "approver": APPROVER_KEY,
    "auditor": AUDITOR_KEY,
    "viewer": VIEWER_KEY,
}
WRITE = {"operation": "files.write", "arguments": {"path": "report.csv", "content": "a,b\n"}, "why": "The report is due today."}
READ = {"operation": "files.read", "arguments": {"path": "report.csv"}}


def by(role: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[role]}", **more}


def token(home: House, agent: str = "scribe") -> dict[str, str]:
    return {"Authorization": f"Bearer {home.kernel.agents.mint(agent, None, 'first-key').token}"}


@pytest.fixture
def home() -> House:
    return house()


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """One application for all tests: making one takes longer than most of them."""
    return create_app(house().control)


@pytest.fixture
def client(app: FastAPI, home: House) -> Iterator[TestClient]:
    app.state.control, app.state.hands, app.state.repeats = home.control, Hands(home.control.clock), Repeats(home.control.clock)
    app.state.lanes, app.state.waiters = Lanes(), Waiters()
    with TestClient(app, base_url="http://127.0.0.1:8710", raise_server_exceptions=False) as made:
        yield made


@pytest.fixture
def own(home: House) -> Iterator[TestClient]:
    """An application of its own, for what it keeps from its beginning on: streams and metrics."""
    with TestClient(create_app(home.control), base_url="http://127.0.0.1:8710", raise_server_exceptions=False) as made:
        yield made


def post(client: TestClient, path: str, body: Any = None, role: str = "admin", **headers: str) -> Any:
    return client.post("/api/v1" + path, json=body, headers=by(role, **headers))


def get(client: TestClient, path: str, role: str = "admin") -> Any:
    return client.get("/api/v1" + path, headers=by(role))


def test_an_agent_is_registered_with_a_key_that_is_shown_once(client: TestClient) -> None:
    body = {"name": "helper", "scopes": ["files.read", "files.write:src/**"], "limits": {"files": 10}, "egress": ["https://a.example:443"]}
    made = post(client, "/agents", body)
    assert made.status_code == 201
    agent = made.json()["agent"]
    assert made.json()["key"].startswith("ak_")
    assert made.headers["location"] == f"/api/v1/agents/{agent['id']}"
    assert (agent["scopes"], agent["limits"]["files"], agent["created_by"]) == (body["scopes"], 10, "first-key")
    assert get(client, "/agents/helper").json() == agent
    assert "ak_" not in get(client, "/agents").text


def test_a_list_of_agents_is_read_page_by_page(client: TestClient) -> None:
    for number in range(5):
        post(client, "/agents", {"name": f"n{number}"})
    names, cursor = [], ""
    while True:
        page = get(client, f"/agents?limit=3{cursor}").json()
        names += [agent["name"] for agent in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert names == ["scribe", "crawler", "n0", "n1", "n2", "n3", "n4"]
    assert get(client, "/agents?cursor=x").json()["field"] == "cursor"


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"name": "x", "scopes": ["files.fly"]}, "SCOPE_UNKNOWN", "scopes"),
        ({"name": "scribe"}, "AGENT_NAME_TAKEN", None),
        ({"name": "x", "limits": {"files": -1}}, "FIELD_INVALID", "limits.files"),
        ({"name": "x", "limits": {"cpu_cores": 1e300}}, "FIELD_INVALID", "limits.cpu_cores"),
        ({"name": "x", "autonomy": "reckless"}, "FIELD_INVALID", "autonomy"),
        ({"name": "x", "key": "mine"}, "FIELD_INVALID", "key"),
        ({"scopes": []}, "FIELD_INVALID", "name"),
    ],
)
def test_a_bad_registration_names_the_field(client: TestClient, body: dict[str, Any], code: str, field: str | None) -> None:
    answer = post(client, "/agents", body)
    assert (answer.json()["code"], answer.json().get("field")) == (code, field)
    assert answer.status_code in (409, 422)


def test_scopes_are_given_and_taken_and_an_agent_is_suspended_resumed_and_revoked(client: TestClient) -> None:
    given = post(client, "/agents/crawler/scopes/grant", {"scopes": ["system.read"]}).json()
    assert "system.read" in given["scopes"]
    assert "system.read" not in post(client, "/agents/crawler/scopes/revoke", {"scopes": ["system.read"]}).json()["scopes"]
    for verb, state in (("resume", "active"), ("suspend", "suspended"), ("revoke", "revoked")):
        assert post(client, f"/agents/crawler/{verb}", {"reason": "because"}).json()["state"] == state
    assert post(client, "/agents/crawler/resume").json()["code"] == "AGENT_REVOKED"


def test_a_minted_token_belongs_to_a_session_that_can_be_ended(client: TestClient) -> None:
    minted = post(client, "/agents/scribe/tokens", {"scopes": ["files.read"], "life_s": 60})
    assert minted.status_code == 201
    agent = {"Authorization": f"Bearer {minted.json()['token']}"}
    assert client.post("/api/v1/actions", json=READ, headers=agent).status_code == 200
    session = minted.json()["session"]
    ended = post(client, f"/agents/scribe/sessions/{session}/revoke", {"reason": "done"}).json()["items"]
    assert [one["revoked_us"] is None for one in ended if one["id"] == session] == [False]
    refused = client.post("/api/v1/actions", json=READ, headers=agent)
    assert (refused.status_code, refused.json()["code"]) == (401, "SESSION_REVOKED")


def test_what_a_person_has_made_by_hand_is_tied_to_the_key_that_asked(client: TestClient, home: House) -> None:
    post(client, "/agents/scribe/tokens", {})
    post(client, "/agents/scribe/actions", READ)
    client.post("/api/v1/agents/scribe/actions", json=READ, headers=by("operator"))
    assert home.kernel.agents.minted_with == ["key_of_first-key", "key_of_first-key", "key_of_otto"]


def test_it_is_said_of_each_limit_whether_it_holds(client: TestClient) -> None:
    answer = client.get("/api/v1/agents/scribe/limits", headers=by("viewer"))
    found = {item["limit"]: item for item in answer.json()["items"]}
    assert (found["processes"]["held"], found["memory_bytes"]["held"], found["priority"]["held"]) == ("enforced", "soft", "not enforced")
    assert found["memory_bytes"]["gap"]
    assert client.get("/api/v1/agents/nobody/limits", headers=by("viewer")).json()["code"] == "AGENT_UNKNOWN"


def test_an_action_is_done_waits_or_is_refused(client: TestClient, home: House) -> None:
    agent = token(home)
    done = client.post("/api/v1/actions", json=READ, headers=agent)
    assert (done.status_code, done.json()["outcome"], done.json()["level"]) == (200, "done", 4)
    waiting = client.post("/api/v1/actions", json=WRITE, headers=agent)
    assert (waiting.status_code, waiting.json()["outcome"]) == (202, "waiting")
    assert waiting.headers["location"] == f"/api/v1/approvals/{waiting.json()['approval_id']}"
    refused = client.post("/api/v1/actions", json={"operation": "files.delete", "arguments": {"path": "x"}}, headers=agent)
    assert (refused.status_code, refused.json()["code"]) == (403, "SCOPE_REFUSED")
    assert refused.json()["details"]["action"]["outcome"] == "refused"
    assert refused.headers["content-type"] == "application/problem+json"
    unknown = client.post("/api/v1/actions", json={"operation": "files.fly"}, headers=agent)
    assert (unknown.status_code, unknown.json()["code"]) == (422, "OPERATION_UNKNOWN")
    former = done.json()["action_id"]
    assert get(client, f"/actions/{former}").json() == done.json()


def test_an_agent_reads_its_own_actions_and_no_others(client: TestClient, home: House) -> None:
    home.kernel.agents.resume("crawler", "first-key", "for the test")
    agent, other = token(home), token(home, "crawler")
    done = client.post("/api/v1/actions", json=READ, headers=agent).json()
    path = f"/api/v1/actions/{done['action_id']}"
    assert client.get(path, headers=agent).json() == done
    for headers in (other, agent):
        missing = client.get(path if headers is other else "/api/v1/actions/act_nothing", headers=headers)
        assert (missing.status_code, missing.json()["code"]) == (404, "NOT_FOUND")
    assert client.get(path, headers={"Authorization": "Bearer forged"}).status_code == 401
    assert client.get(path).status_code == 401


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer ", f"Bearer {ADMIN_KEY}", "Basic abc", "Bearer forged", "Bearer " + "x" * 9000])
def test_whoever_is_no_agent_gets_401_and_nothing_is_executed(client: TestClient, home: House, header: str | None) -> None:
    answer = client.post("/api/v1/actions", json=READ, headers={"Authorization": header} if header else {})
    assert (answer.status_code, answer.json()["code"]) == (401, "TOKEN_INVALID")
    assert not home.kernel.actions.requests


def test_an_action_may_have_all_the_characters_its_arguments_may_have_however_they_are_written(client: TestClient, home: House) -> None:
    assert ACTION_BODY_BYTES_MAX >= 12 * TOTAL_CHARS_MAX + BODY_BYTES_MAX
    body = json.dumps({"operation": "files.write", "arguments": {"path": "a", "content": "\U0001f600" * CONTENT_CHARS_MAX}}).encode()
    assert len(body) > 12 << 20
    for path, headers in (("/actions", token(home)), ("/agents/scribe/actions", by("admin"))):
        sent = client.post("/api/v1" + path, content=body, headers={**headers, "content-type": "application/json"})
        assert sent.status_code == 202, sent.text[:300]  # it waits for a person, whole
        over = client.post("/api/v1" + path, content=b"x" * (ACTION_BODY_BYTES_MAX + 1), headers=headers)
        assert (over.status_code, over.json()["code"]) == (413, "FILE_TOO_LARGE")


def test_the_rest_of_large_bodies_is_read_a_few_at_a_time_and_small_ones_do_not_wait() -> None:
    rest, answered = asyncio.Event(), list[str]()
    reading = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert len((await receive())["body"]) == scope["size"]
        answered.append(scope["path"])

    async def ask(edge: Edge, path: str, size: int) -> None:
        pieces = iter([min(size, BODY_BYTES_MAX + 1), max(0, size - BODY_BYTES_MAX - 1)])

        async def receive() -> Message:
            nonlocal reading
            piece = next(pieces)
            more = size > BODY_BYTES_MAX and piece > 1
            if not more and size > BODY_BYTES_MAX:
                reading += 1
                await rest.wait()
            return {"type": "http.request", "body": b"x" * piece, "more_body": more}

        async def send(_: Message) -> None: ...

        await edge({"type": "http", "method": "POST", "path": path, "headers": [], "size": size}, receive, send)

    async def run() -> None:
        edge = Edge(app, None, lambda *_: None)
        async with asyncio.TaskGroup() as group:
            for _ in range(LARGE_BODIES_AT_ONCE + 3):
                group.create_task(ask(edge, "/api/v1/actions", BODY_BYTES_MAX + 2))
            group.create_task(ask(edge, "/api/v1/rollouts", 10))
            for _ in range(200):
                await asyncio.sleep(0)
            assert (answered, reading) == (["/api/v1/rollouts"], LARGE_BODIES_AT_ONCE)
            rest.set()
        assert (len(answered), reading) == (LARGE_BODIES_AT_ONCE + 4, LARGE_BODIES_AT_ONCE + 3)

    asyncio.run(run())


def test_the_data_of_an_agent_is_trusted_again_only_while_it_is_suspended(client: TestClient) -> None:
    refused = post(client, "/agents/scribe/trust", {"reason": "looked"})
    assert (refused.status_code, refused.json()["code"]) == (409, "AGENT_NOT_SUSPENDED")
    assert post(client, "/agents/scribe/suspend", {"reason": "to look"}).status_code == 200
    trusted = post(client, "/agents/scribe/trust", {"reason": "looked"})
    assert (trusted.status_code, trusted.json()["untrusted_us"]) == (200, None)


def test_a_suspended_agent_gets_403(client: TestClient, home: House) -> None:
    agent = token(home)
    home.kernel.agents.suspend("scribe", "first-key", "")
    answer = client.post("/api/v1/actions", json=READ, headers=agent)
    assert (answer.status_code, answer.json()["code"]) == (403, "AGENT_SUSPENDED")


def test_an_action_that_could_not_be_recorded_is_503_and_safe_to_repeat(client: TestClient, home: House) -> None:
    agent = token(home)
    home.kernel.audit.down = CohortError("AUDIT_UNAVAILABLE", "the disk is full", retry=Retry.SAFE, hint="Make room.")
    answer = client.post("/api/v1/actions", json=READ, headers=agent)
    assert (answer.status_code, answer.json()["code"], answer.json()["retry"]) == (503, "AUDIT_UNAVAILABLE", "safe")


def test_by_hand_the_same_person_comes_back_in_the_same_session_and_the_approval_fits(client: TestClient, home: House) -> None:
    waiting = post(client, "/agents/scribe/actions", WRITE)
    assert waiting.status_code == 202
    approval = waiting.json()["approval_id"]
    assert post(client, "/agents/scribe/actions", WRITE).json()["approval_id"] == approval
    assert post(client, "/agents/scribe/actions", WRITE, role="operator").json()["approval_id"] != approval
    assert post(client, f"/approvals/{approval}/approve", role="approver").json()["state"] == "approved"
    assert post(client, "/agents/scribe/actions", WRITE).json()["outcome"] == "done"
    assert get(client, f"/approvals/{approval}").json()["state"] == "consumed"


def test_by_hand_a_new_scope_and_a_revoked_session_begin_a_new_one(client: TestClient, home: House) -> None:
    post(client, "/agents/scribe/actions", READ)
    first = home.kernel.agents.sessions("scribe")
    post(client, f"/agents/scribe/sessions/{first[0].id}/revoke")
    assert post(client, "/agents/scribe/actions", READ).status_code == 200
    post(client, "/agents/scribe/scopes/grant", {"scopes": ["system.read"]})
    post(client, "/agents/scribe/actions", READ)
    sessions = home.kernel.agents.sessions("scribe")
    assert len(sessions) == 3
    assert "system.read" in sessions[-1].scopes


def test_a_request_that_waits_goes_on_when_somebody_approves(client: TestClient, home: House) -> None:
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(post(client, "/agents/scribe/actions", WRITE | {"wait_s": 20})))
    waiting.start()
    with_question = get(client, "/approvals?state=pending").json()["items"]
    while not with_question:
        with_question = get(client, "/approvals?state=pending").json()["items"]
    looking = threading.Thread(target=lambda: answers.append(get(client, f"/approvals/{with_question[0]['id']}?wait_s=20")))
    looking.start()
    post(client, f"/approvals/{with_question[0]['id']}/approve")
    waiting.join(20)
    looking.join(20)
    assert sorted(answer.json().get("outcome", "approval") for answer in answers) == ["approval", "done"]


def test_an_approval_says_who_answered_and_how_long_they_looked(client: TestClient, home: House) -> None:
    approval = asked(home.kernel).id
    body = {"grant": "standing", "resource": "ws_0000000000000001/**", "life_s": 3600, "uses": 5, "looked_ms": 4200, "note": "fine"}
    words = post(client, f"/approvals/{approval}/preview", body, role="approver").json()["words"]
    assert words == f"{home.kernel.approvals.find(approval).plain}. standing."
    answer = post(client, f"/approvals/{approval}/approve", body, role="approver").json()
    assert (answer["state"], answer["approvers"], answer["grant"]) == ("approved", ["ana"], "standing")
    sign = home.kernel.approvals.signs[-1]
    assert (sign.approver, sign.looked_ms, sign.uses, sign.life_s) == ("ana", 4200, 5, 3600)
    rules = get(client, "/approval-rules").json()["items"]
    assert [rule["resource"] for rule in rules] == [body["resource"]]
    assert post(client, f"/approval-rules/{rules[0]['id']}/revoke").json()["revoked_us"]
    again = post(client, f"/approvals/{approval}/deny")
    assert (again.status_code, again.json()["code"]) == (409, "APPROVAL_DECIDED")


def test_nobody_can_say_who_approves(client: TestClient, home: House) -> None:
    approval = asked(home.kernel).id
    assert post(client, f"/approvals/{approval}/approve", {"approver": "boss"}).json()["field"] == "approver"
    assert home.kernel.approvals.find(approval).state is ApprovalState.PENDING


def test_a_signed_answer_of_the_webhook_needs_no_key(client: TestClient, home: House) -> None:
    approval = asked(home.kernel).id
    path = "/api/v1/approvals/reply"
    assert client.post(path, content=approval).status_code == 401
    answered = client.post(path, content=approval, headers={"webhook-signature": "right"})
    assert (answered.status_code, answered.json()["approvers"]) == (200, ["webhook"])


def test_an_agent_takes_its_question_back_and_not_anothers(client: TestClient, home: House) -> None:
    approval = asked(home.kernel).id
    home.kernel.agents.resume("crawler", "first-key", "")
    other = client.post(f"/api/v1/approvals/{approval}/withdraw", headers=token(home, "crawler"))
    assert (other.status_code, other.json()["code"]) == (403, "APPROVER_REFUSED")
    assert client.post(f"/api/v1/approvals/{approval}/approve", headers=token(home)).status_code == 401
    assert client.post(f"/api/v1/approvals/{approval}/withdraw", headers=token(home)).json()["state"] == "withdrawn"


def test_the_log_is_searched_page_by_page_newest_first(client: TestClient, home: House) -> None:
    for number in range(7):
        home.kernel.audit.append("note", {"text": f"remark {number}"})
    first = get(client, "/audit/entries?kind=note&limit=5").json()
    assert [entry["body"]["body"]["text"] for entry in first["items"]] == [f"remark {number}" for number in (6, 5, 4, 3, 2)]
    rest = get(client, f"/audit/entries?kind=note&limit=5&cursor={first['next']}").json()
    assert [entry["body"]["body"]["text"] for entry in rest["items"]] == ["remark 1", "remark 0"]
    assert rest["next"] is None
    assert first["size"] == home.kernel.audit.size()
    assert len(get(client, "/audit/entries?text=remark%203").json()["items"]) == 1
    index = first["items"][0]["index"]
    assert get(client, f"/audit/entries/{index}").json() == first["items"][0]
    assert get(client, "/audit/entries/999").status_code == 404


def test_a_changed_policy_is_put_in_force_by_an_admin_and_a_wrong_one_is_not(client: TestClient, home: House) -> None:
    assert post(client, "/policy/reload", role="manager").json()["code"] == "ROLE_TOO_LOW"
    wrong = post(client, "/policy/reload")
    assert (wrong.status_code, wrong.json()["code"], wrong.json()["field"]) == (422, "POLICY_INVALID", "policy.cedar:3")
    assert post(client, "/policy/reload").json() == {"hash": "c0ffee"}
    assert len(home.kernel.policy_asked_by) == 2


def test_the_log_is_verified_proven_exported_anchored_and_noted(client: TestClient, home: House) -> None:
    assert post(client, "/audit/verify").json()["integrity"] == "verified"
    home.kernel.audit.broken = 1
    broken = post(client, "/audit/verify", {"full": False})
    assert (broken.status_code, broken.json()["integrity"], broken.json()["first_bad"]) == (200, "broken", 1)
    proof = get(client, "/audit/entries/1/proof").json()
    assert proof["text"].startswith("c2sp.org/tlog-proof@v1")
    assert proof["leaf"] == home.kernel.audit.entry(1).leaf
    checkpoint = get(client, "/audit/checkpoint")
    assert checkpoint.headers["content-type"].startswith("text/plain")
    assert checkpoint.text == home.kernel.audit.checkpoint()
    assert get(client, "/audit/key").text == "cohort.local/audit+00000000+AAAA\n"
    exported = get(client, "/audit/export")
    with tarfile.open(fileobj=io.BytesIO(exported.content)) as tar:
        assert {"audit/checkpoint", "audit/entries.jsonl"} <= set(tar.getnames())
    assert post(client, "/audit/anchor").json()["items"][0]["ok"] is True
    noted = post(client, "/audit/notes", {"text": "rotated the keys"}, role="auditor")
    assert (noted.status_code, noted.json()["index"]) == (201, home.kernel.audit.size() - 1)


def test_a_workspace_is_looked_at_committed_and_put_back(client: TestClient) -> None:
    assert [one["changes"] for one in get(client, "/workspaces").json()["items"]] == [3, 3]
    assert get(client, "/workspaces/scribe").json()["usage"]["hard"] is True
    assert [change["kind"] for change in get(client, "/workspaces/scribe/diff").json()["items"]] == ["changed", "added", "removed"]
    assert "+two" in get(client, "/workspaces/scribe/diff/text?path=notes/plan.md").json()["diff"]
    kept = post(client, "/workspaces/scribe/commit", {"reason": "good"}).json()
    assert kept["reason"] == "good"
    assert [one["id"] for one in get(client, "/workspaces/scribe/snapshots").json()["items"]] == [kept["id"]]
    assert post(client, "/workspaces/scribe/restore", {"snapshot": kept["id"]}).json() == kept
    assert post(client, "/workspaces/scribe/restore", {"snapshot": "sn_x"}).json()["code"] == "SNAPSHOT_UNKNOWN"
    assert post(client, "/workspaces/scribe/remove").status_code == 204
    assert get(client, "/workspaces/scribe").json()["code"] == "WORKSPACE_UNKNOWN"


def test_containment_and_safety_say_what_is_not_known(client: TestClient, home: House) -> None:
    assert get(client, "/containment", "viewer").json()["level"] == 3
    assert get(client, "/safety", "viewer").json()["unauthorised"] is None
    home.kernel.containment = None
    missing = get(client, "/containment")
    assert (missing.status_code, missing.json()["retry"]) == (503, "safe")


def test_keys_are_made_listed_and_revoked_by_an_admin_alone(client: TestClient) -> None:
    made = post(client, "/keys", {"name": "nora", "role": "approver"})
    assert made.status_code == 201
    key = made.json()["key"]["id"]
    assert made.json()["text"] not in get(client, "/keys").text
    assert post(client, f"/keys/{key}/revoke").json()["items"][0]["revoked_us"]
    for role in ("manager", "operator", "approver", "auditor", "viewer"):
        assert get(client, "/keys", role).json()["code"] == "ROLE_TOO_LOW"


def test_keys_of_clients_are_made_listed_and_revoked(client: TestClient) -> None:
    asked_for = {"name": "shop", "services": ["support"], "team": "web", "budget_usd_per_day": 2.5, "requests_per_minute": 60}
    made = post(client, "/gateway/keys", asked_for, "operator")
    assert made.status_code == 201
    assert made.json()["client"]["terms"]["budget_usd_micro_per_day"] == 2_500_000
    listed = get(client, "/gateway/keys", "viewer")
    assert made.json()["text"] not in listed.text
    assert listed.json()["items"][0]["name"] == "shop"
    assert post(client, "/gateway/keys", asked_for, "operator").json()["field"] == "name"
    assert post(client, "/gateway/keys/shop/revoke", {}, "operator").json()["items"][0]["revoked_us"]
    assert post(client, "/gateway/keys/shop/revoke", {}, "operator").json()["code"] == "NOT_FOUND"
    assert post(client, "/gateway/keys", {"name": "two"}, "approver").json()["code"] == "ROLE_TOO_LOW"


def test_budgets_are_set_changed_and_removed(client: TestClient) -> None:
    assert post(client, "/gateway/budgets", {"scope": "team", "name": "web", "usd": 5}, "operator").status_code == 200
    changed = post(client, "/gateway/budgets", {"scope": "team", "name": "web", "usd": 0}, "operator").json()["items"]
    assert [entry["budget"] for entry in changed] == [{"scope": "team", "name": "web", "usd_micro": 0}]
    assert post(client, "/gateway/budgets", {"scope": "all", "name": "web", "usd": 5}, "operator").json()["field"] == "name"
    assert post(client, "/gateway/budgets/remove", {"scope": "team", "name": "web"}, "operator").json()["items"] == []
    assert post(client, "/gateway/budgets/remove", {"scope": "team", "name": "web"}, "operator").json()["code"] == "NOT_FOUND"


RIGHTS = [
    ("POST", "/agents", {"admin", "manager", "operator"}),
    ("POST", "/agents/scribe/scopes/grant", {"admin", "manager", "operator"}),
    ("POST", "/agents/scribe/tokens", {"admin", "manager", "operator"}),
    ("POST", "/agents/scribe/actions", {"admin", "manager", "operator"}),
    ("POST", "/approvals/ap_x/approve", {"admin", "manager", "approver"}),
    ("POST", "/approvals/ap_x/deny", {"admin", "manager", "approver"}),
    ("POST", "/approvals/ap_x/preview", {"admin", "manager", "approver"}),
    ("POST", "/approval-rules/gr_x/revoke", {"admin", "manager", "approver"}),
    ("POST", "/workspaces/scribe/discard", {"admin", "manager", "operator"}),
    ("POST", "/workspaces/scribe/remove", {"admin", "manager", "operator"}),
    ("POST", "/audit/verify", {"admin", "manager", "auditor"}),
    ("POST", "/audit/notes", {"admin", "manager", "auditor"}),
    ("GET", "/audit/entries", {"admin", "manager", "auditor"}),
    ("GET", "/audit/export", {"admin", "manager", "auditor"}),
    ("GET", "/agents", set(KEYS)),
    ("GET", "/approvals", set(KEYS)),
    ("GET", "/workspaces/scribe/diff", set(KEYS)),
]


@pytest.mark.parametrize(("method", "path", "able"), RIGHTS, ids=[path for _, path, _ in RIGHTS])
def test_a_role_does_what_its_rights_say_and_nothing_else(client: TestClient, method: str, path: str, able: set[str]) -> None:
    for role in KEYS:
        answer = client.request(method, "/api/v1" + path, headers=by(role), json={} if method == "POST" else None)
        refused = answer.status_code == 403 and answer.json()["code"] == "ROLE_TOO_LOW"
        assert refused is (role not in able), (role, answer.status_code, answer.text)


def test_the_same_idempotency_key_changes_once_and_only_for_the_same_request(client: TestClient, home: House) -> None:
    body = {"name": "once"}
    first = post(client, "/agents", body, **{"Idempotency-Key": "k1"})
    again = post(client, "/agents", body, **{"Idempotency-Key": "k1"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    other = post(client, "/agents", {"name": "twice"}, **{"Idempotency-Key": "k1"})
    assert (other.status_code, other.json()["code"]) == (409, "IDEMPOTENCY_MISMATCH")
    assert post(client, "/agents", body, role="manager", **{"Idempotency-Key": "k1"}).json()["code"] == "AGENT_NAME_TAKEN"
    client.post("/api/v1/actions", json=READ, headers=token(home) | {"Idempotency-Key": "k1"})
    assert home.kernel.actions.requests[-1].idempotency_key == "k1"


def test_a_live_list_says_what_waits(own: TestClient, home: House) -> None:
    client = own
    first = asked(home.kernel)
    with client.stream("GET", "/api/v1/approvals/events", headers=by("viewer")) as stream:
        lines = stream.iter_lines()
        for line in lines:
            if line.startswith("data:"):
                assert first.id in line
                break
        home.kernel.approvals.deny(first.id, Sign("ana"))
        assert next(line for line in lines if line.startswith("data:")) == 'data: {"items":[]}'
        client.app.state.feed.close()  # type: ignore[attr-defined]


def test_prometheus_reads_the_kernel_and_what_is_unknown_is_left_out(own: TestClient, home: House) -> None:
    client = own
    asked(home.kernel)
    text = client.get("/metrics").text
    for line in ('cohort_agents{state="suspended"} 1.0', "cohort_approvals_pending 1.0", "cohort_isolation_level 3.0"):
        assert line in text
    assert "cohort_safety_bypasses 0.0" in text
    assert "cohort_safety_unauthorised" not in text
    home.kernel.containment = None
    assert "cohort_isolation_level" not in client.get("/metrics").text
