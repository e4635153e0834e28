"""The pages about agents without a browser: what they show, who may press what, and that nothing an agent writes gets through."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

import support_views as views
from cohort.base.errors import CohortError
from cohort.kernel.face import Entry, NewAgent, Request, SafetyCounts, Sign
from cohort.kernel.model import AgentState, ApprovalState, GrantScope
from cohort.surfaces.dashboard.recent import recent_actions
from cohort.surfaces.dashboard.wording_kernel import coded, record_line, safety_tiles
from cohort.surfaces.http.app import create_app
from support_delivery import ADMIN_KEY, APPROVER_KEY, AUDITOR_KEY, OPERATOR_KEY, VIEWER_KEY, House, house
from support_kernel import asked

PAGE = {"accept": "text/html"}
FIRST = "ap_0000000000000001"
PAGES = [
    "/agents",
    "/agents/scribe",
    "/agents/crawler",
    "/agents/scribe/suspend",
    "/agents/scribe/revoke",
    "/agents/scribe/workspace/discard",
    "/agents/scribe/diff?path=notes/plan.md",
    "/approvals",
    f"/approvals/{FIRST}",
    f"/approvals?done={FIRST}",
    "/audit",
    "/audit?kind=agent&text=scribe&since=2020-01-01T00:00",
    "/audit/0",
    "/containment",
]
HOSTILE = views.HOSTILE


def populated() -> House:
    home = house()
    asked(home.kernel)
    done = asked(home.kernel, path="old.csv")
    home.kernel.approvals.approve(done.id, Sign("ana", GrantScope.STANDING))
    return home


@pytest.fixture
def home() -> House:
    return populated()


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """One application for all tests: making one takes longer than most of them."""
    return create_app(house().control)


@pytest.fixture
def client(app: FastAPI, home: House) -> Iterator[TestClient]:
    app.state.control = home.control
    with TestClient(app, base_url="http://127.0.0.1:8710", raise_server_exceptions=False, headers=PAGE, follow_redirects=False) as made:
        yield made


def signed(client: TestClient, key: str = ADMIN_KEY) -> TestClient:
    client.cookies.clear()
    assert client.post("/login", data={"key": key}).status_code == 303
    return client


def csrf(client: TestClient) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', client.get("/plans").text)
    assert found is not None
    return found[1]


class _Shape(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        if "id" in names:
            self.ids.append(str(names["id"]))
        if tag in ("style", "img") or "style" in names or any(name.startswith("on") for name in names):
            self.wrong.append(tag)
        if any(str(names.get(name, "/")).startswith(("http", "//", "data:", "javascript:")) for name in ("src", "href", "action")):
            self.wrong.append(tag)


def sound(text: str) -> None:
    shape = _Shape()
    shape.feed(text)
    assert len(shape.ids) == len(set(shape.ids))
    assert shape.wrong == []


@pytest.mark.parametrize("path", PAGES)
def test_every_page_renders_without_anything_inline_or_from_elsewhere(client: TestClient, path: str) -> None:
    answer = signed(client).get(path)
    assert answer.status_code == 200, answer.text
    sound(answer.text)
    assert len(re.findall("<h1", answer.text)) == 1
    assert "None" not in re.sub(r"<[^>]*>", " ", answer.text)


@pytest.mark.parametrize("path", PAGES)
def test_every_page_wants_a_key_and_leads_back(client: TestClient, path: str) -> None:
    assert client.get(path).headers["location"].startswith("/login")


@pytest.mark.parametrize("path", ["/agents", "/approvals", "/audit", "/containment"])
def test_an_empty_installation_says_what_to_do_first(client: TestClient, home: House, path: str) -> None:
    home.kernel.agents.agents.clear()
    home.kernel.approvals.all.clear()
    home.kernel.audit.entries.clear()
    home.kernel.containment = None
    home.kernel.safety = SafetyCounts(0, None, None, None, None)
    answer = signed(client).get(path)
    assert answer.status_code == 200
    sound(answer.text)


def test_what_agents_write_is_text_everywhere(client: TestClient, home: House) -> None:
    home.kernel.agents.register(NewAgent("mallory", ("files.write",), description=HOSTILE), "first-key")
    approval = asked(home.kernel, "mallory", path=HOSTILE, why=HOSTILE)
    home.kernel.approvals.put(replace(approval, plain=f"Write `{HOSTILE}`", touches=(HOSTILE,), task=HOSTILE))
    home.kernel.audit.append(
        "decision", {"operation": HOSTILE, "answer": "deny", "code": HOSTILE, "resource": HOSTILE}, approval.action.agent
    )
    strange = {"kind": 7, "agent": [HOSTILE], "action": {}, "at_us": HOSTILE, "body": [HOSTILE]}
    home.kernel.audit.entries.append(Entry(len(home.kernel.audit.entries), "0" * 64, strange))
    home.kernel.audit.entries.append(Entry(len(home.kernel.audit.entries), "0" * 64, {"unreadable": HOSTILE}))
    signed(client)
    unreadable = len(home.kernel.audit.entries) - 1
    for path in (
        "/agents",
        "/agents/mallory",
        "/approvals",
        f"/approvals/{approval.id}",
        "/audit",
        f"/audit/{unreadable}",
        "/audit?text=onerror",
    ):
        answer = client.get(path)
        assert answer.status_code == 200, path
        text = answer.text
        assert "<img" not in text, path
        assert "49" not in re.sub(r"<[^>]*>", "", text) or "{{7*7}}" in text, path
        sound(text)


def test_a_question_shows_the_kernels_words_and_the_agents_own_apart(client: TestClient) -> None:
    text = signed(client).get("/approvals").text
    assert "Write report.csv in the workspace of scribe" in text
    assert '<blockquote class="own">The report is due today.</blockquote>' in text
    assert "Nobody has checked it" in text
    assert "High risk" in text
    assert "1 question waits for a person" in text
    assert '<b class="badge"' in client.get("/plans").text


def test_approving_and_denying_with_the_buttons(client: TestClient, home: House) -> None:
    signed(client, APPROVER_KEY)
    form = {"csrf": csrf(client), "looked_ms": "4200", "note": " fine "}
    answer = client.post(f"/approvals/{FIRST}/approve", data=form)
    assert answer.headers["location"] == f"/approvals?done={FIRST}"
    assert "Approved" in client.get(answer.headers["location"]).text
    sign = home.kernel.approvals.signs[-1]
    assert (sign.approver, sign.grant, sign.looked_ms, sign.note) == ("ana", GrantScope.ONCE, 4200, "fine")
    late = client.post(f"/approvals/{FIRST}/deny", data=form)
    assert late.status_code == 409
    assert "is approved already" in late.text
    other = asked(home.kernel, path="b.csv")
    assert client.post(f"/approvals/{other.id}/deny", data={"csrf": form["csrf"], "looked_ms": ""}).status_code == 303
    assert home.kernel.approvals.find(other.id).state is ApprovalState.DENIED
    assert home.kernel.approvals.signs[-1].looked_ms is None


def test_a_wider_permission_is_shown_back_in_plain_words_and_can_be_ended(client: TestClient, home: House) -> None:
    signed(client)
    form = {"csrf": csrf(client), "grant": "standing", "words": "git 'log -p'", "resource": "", "hours": "1.5", "uses": ""}
    answer = client.post(f"/approvals/{FIRST}/approve", data=form)
    sign = home.kernel.approvals.signs[-1]
    assert (sign.grant, sign.argv_prefix, sign.resource, sign.life_s, sign.uses) == (
        GrantScope.STANDING,
        ("git", "log -p"),
        None,
        5400.0,
        None,
    )
    page = client.get(answer.headers["location"]).text
    assert "From now on this is permitted: files.write on" in page
    rule = next(reversed(home.kernel.approvals.grants))
    assert client.post(f"/approval-rules/{rule}/revoke", data={"csrf": form["csrf"]}).status_code == 303
    assert rule not in client.get("/approvals").text
    other = asked(home.kernel, path="c.csv")
    assert client.post(f"/approvals/{other.id}/approve", data=form | {"words": "git 'log"}).status_code == 422
    assert client.post(f"/approvals/{other.id}/approve", data=form | {"hours": "-1"}).status_code == 422
    assert home.kernel.approvals.find(other.id).state is ApprovalState.PENDING


def test_pressing_enter_in_a_field_of_a_question_answers_nothing(client: TestClient) -> None:
    for form in re.findall(
        r'<form method="post" action="/approvals/[^"]+/approve".*?</form>', signed(client).get("/approvals").text, re.DOTALL
    ):
        first = re.search(r"<button[^>]*>", form)
        assert first is not None
        assert "disabled" in first[0], "the first button of a form is what Enter presses"


CHANGES = [
    (f"/approvals/{FIRST}/approve", {ADMIN_KEY, APPROVER_KEY}),
    (f"/approvals/{FIRST}/deny", {ADMIN_KEY, APPROVER_KEY}),
    ("/approval-rules/gr_0000000000000001/revoke", {ADMIN_KEY, APPROVER_KEY}),
    ("/agents/scribe/suspend", {ADMIN_KEY, OPERATOR_KEY}),
    ("/agents/scribe/workspace/commit", {ADMIN_KEY, OPERATOR_KEY}),
    ("/audit/verify", {ADMIN_KEY, AUDITOR_KEY}),
]


@pytest.mark.parametrize(("path", "able"), CHANGES, ids=[path for path, _ in CHANGES])
def test_only_whoever_may_can_press_a_button_and_only_from_our_page(client: TestClient, path: str, able: set[str]) -> None:
    for key in (VIEWER_KEY, AUDITOR_KEY, OPERATOR_KEY, APPROVER_KEY, ADMIN_KEY):
        right = csrf(signed(client, key))
        assert client.post(path, data={"csrf": "forged"}).status_code == 403
        answer = client.post(path, data={"csrf": right})
        assert (answer.status_code == 403) is (key not in able), (key, answer.status_code)


def test_buttons_are_shown_only_to_whoever_may_press_them(client: TestClient) -> None:
    signed(client, VIEWER_KEY)
    inbox = client.get("/approvals").text
    assert "Approve once" not in inbox
    assert "may look and not answer" in inbox
    assert 'href="/agents/ag_0000000000000001/suspend"' not in client.get("/agents/scribe").text
    assert "/audit" not in re.findall(r"<nav.*?</nav>", inbox, re.DOTALL)[0]
    assert client.get("/audit").status_code == 403
    assert "needs a key with the right to audit" in client.get("/agents/scribe").text


def test_an_agent_is_suspended_and_revoked_after_a_page_in_between(client: TestClient, home: House) -> None:
    right = csrf(signed(client))
    assert "Nothing it asks for is done" in client.get("/agents/scribe/suspend").text
    done = client.post("/agents/scribe/suspend", data={"csrf": right, "reason": "odd"})
    assert "Suspended." in client.get(done.headers["location"]).text
    assert home.kernel.agents.find("scribe").state is AgentState.SUSPENDED
    assert client.post("/agents/scribe/revoke", data={"csrf": right, "reason": " "}).status_code == 422
    assert client.post("/agents/scribe/revoke", data={"csrf": right, "reason": "leaked"}).status_code == 303
    assert client.post("/agents/scribe/resume", data={"csrf": right}).status_code == 403
    assert client.post("/agents/nobody/suspend", data={"csrf": right}).status_code == 404


def test_a_workspace_is_committed_and_a_session_ended_from_the_page(client: TestClient, home: House) -> None:
    right = csrf(signed(client))
    assert "notes/plan.md" in client.get("/agents/scribe").text
    assert client.post("/agents/scribe/workspace/commit", data={"csrf": right, "reason": "good"}).status_code == 303
    assert "Nothing changed since the last commit" in client.get("/agents/scribe").text
    session = home.kernel.agents.sessions("scribe")[0].id
    assert client.post(f"/agents/scribe/sessions/{session}/revoke", data={"csrf": right}).status_code == 303
    assert home.kernel.agents.open[session].revoked_us is not None


def test_a_workspace_that_cannot_be_looked_at_does_not_hide_its_agent(client: TestClient, home: House) -> None:
    home.kernel.workspaces.removed.add("ws_0000000000000001")
    page = signed(client).get("/agents/scribe")
    assert page.status_code == 200
    assert "there is no workspace" in page.text


def test_the_log_is_filtered_and_read_page_by_page(client: TestClient, home: House) -> None:
    for number in range(50):
        home.kernel.audit.append("note", {"text": f"remark {number}"})
    first = signed(client).get("/audit?kind=note").text
    assert first.count('<details class="entry') == 40
    older = re.search(r'href="(/audit\?[^"]*before=[^"]+)"', first)
    assert older is not None
    second = client.get(older[1].replace("&amp;", "&")).text
    assert second.count('<details class="entry') == 10
    assert "remark 0" in second
    assert client.get("/audit?since=yesterday").status_code == 422
    assert client.get("/audit/999").status_code == 404
    proof = client.get("/audit/3/proof")
    assert proof.headers["content-disposition"] == 'attachment; filename="entry-3.tlog-proof"'


def test_a_broken_log_is_said_where_it_breaks_and_the_three_answers_stand_apart(client: TestClient, home: House) -> None:
    home.kernel.audit.broken = 2
    right = csrf(signed(client))
    page = client.post("/audit/verify", data={"csrf": right}).text
    assert "The log is broken at entry 2" in page
    assert "Every allowed action has an outcome" in page
    assert "No other place vouches for it" in page
    home.kernel.audit.entries.clear()
    assert "an empty log is not a verified one" in client.get("/audit").text


def test_what_was_not_compared_is_not_none(client: TestClient, home: House) -> None:
    tiles = {tile.label: (tile.value, tile.tone) for tile in safety_tiles(home.kernel.safety)}
    assert tiles["Bypasses of the gate"] == ("0", "safe")
    assert tiles["Unauthorised actions"] == ("not compared", "wait")
    assert "not compared" in signed(client).get("/containment").text
    assert safety_tiles(SafetyCounts(3, 2, 0, 0, 1))[1].tone == "harm"


def test_an_action_is_one_row_with_its_last_word(home: House) -> None:
    token = home.kernel.agents.mint("scribe", None, "first-key").token
    for operation in ("files.read", "files.delete", "files.write"):
        home.kernel.actions.perform(token, Request(operation, {"path": "x", "content": ""}))
    home.kernel.audit.append("intent", {"operation": "terminal.run"}, "ag_0000000000000001", "act_9")
    rows = recent_actions(reversed(home.kernel.audit.entries))
    assert [(row.operation, row.word, row.code) for row in rows[:4]] == [
        ("terminal.run", "runs", ""),
        ("files.write", "waits", ""),
        ("files.delete", "refused", "SCOPE_REFUSED"),
        ("files.read", "done", ""),
    ]
    asked = rows[1].action
    for state, word, code in (
        ("pending", "waits", ""),
        ("approved", "approved", ""),
        ("consumed", "approved", ""),
        ("denied", "refused", "APPROVAL_DENIED"),
    ):
        home.kernel.audit.append("approval", {"event": "answered", "state": state}, "ag_0000000000000001", asked)
        row = next(row for row in recent_actions(reversed(home.kernel.audit.entries)) if row.action == asked)
        assert (row.word, row.code) == (word, code)


@pytest.mark.parametrize(
    ("body", "title", "tone"),
    [
        ({"kind": "intent", "body": {"operation": "files.read"}}, "files.read allowed", "plain"),
        ({"kind": "decision", "body": {"operation": "files.read", "answer": "deny", "code": "X"}}, "files.read refused: X", "harm"),
        ({"kind": "outcome", "body": {"operation": "a", "outcome": "unknown"}}, "a unknown", "wait"),
        ({"kind": "outcome", "body": {}}, "action unknown", "wait"),
        (
            {"kind": "approval", "body": {"event": "answered", "operation": "a", "answer": "denied", "approver": "ana"}},
            "a denied by ana",
            "harm",
        ),
        ({"kind": "token", "body": {"event": "refresh_replayed"}}, "Refresh token used twice", "harm"),
        ({"kind": "token", "body": {"event": "token_flood"}}, "Too many tokens asked for", "harm"),
        ({"kind": "policy", "body": {"event": "policy", "broken": ""}}, "Policy in force", "plain"),
        ({"kind": "policy", "body": {"event": "policy", "broken": "line 3"}}, "Policy broken", "harm"),
        ({"kind": "level", "body": {"level": 4, "backend": "bubblewrap"}}, "Isolation level 4, by bubblewrap", "plain"),
        ({"kind": "of tomorrow", "body": None}, "Of tomorrow", "plain"),
        ({"unreadable": "{"}, "Unreadable", "harm"),
        ({}, "", "plain"),
    ],
)
def test_a_record_has_a_title_whatever_it_is(body: dict[str, object], title: str, tone: str) -> None:
    line = record_line(body)
    assert (line.title, line.tone) == (title, tone)


def test_a_yes_that_was_not_used_says_how_long_it_holds(client: TestClient, home: House) -> None:
    question = asked(home.kernel)
    home.kernel.approvals.approve(question.id, Sign("ana"))
    assert "Not used yet:" in signed(client).get(f"/approvals/{question.id}").text
    home.kernel.approvals.consume(question.digest)
    assert "Not used yet:" not in client.get(f"/approvals/{question.id}").text


def test_what_is_not_there_is_said_in_words_with_a_way_on(client: TestClient) -> None:
    page = signed(client).get("/agents/nobody")
    assert page.status_code == 404
    assert "`" not in page.text
    assert '<a class="button" href="/agents">' in page.text


def test_the_tools_of_entries_are_there_where_there_is_something_to_do(client: TestClient) -> None:
    assert "Its own page" in signed(client).get("/audit").text
    assert "Its own page" not in client.get("/audit/0").text


def test_what_the_kernel_quotes_is_set_apart_and_escaped() -> None:
    assert coded("Run `a <b>` in `c`") == "Run <code>a &lt;b&gt;</code> in <code>c</code>"


def test_a_page_comes_even_when_questions_cannot_be_counted(client: TestClient, home: House) -> None:
    signed(client)
    home.kernel.approvals.down = CohortError("DATABASE_UNAVAILABLE", "the database does not answer")
    assert client.get("/plans").status_code == 200


def test_the_audit_page_names_every_key_that_signs(client: TestClient, home: House) -> None:
    first = "cohort.local/audit+00000000+AAAA"
    page = signed(client).get("/audit", headers=PAGE).text
    assert f"signed with <code>{first}</code>. Keep a copy of this key" in page
    home.kernel.audit.rotate_key("ana")
    page = client.get("/audit", headers=PAGE).text
    assert f"<code>cohort.local/audit+00000001+AAAA</code> and <code>{first}</code>. Keep a copy of these keys" in page
    home.kernel.audit.retire_key(None, "ana")
    assert first not in client.get("/audit", headers=PAGE).text
