"""The pages without a browser: signing in, forms, what a second operator is told, and that nothing hostile gets through."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

import httpx2
import pytest
from starlette.testclient import TestClient

import support_views as views
from cohort.base.errors import CohortError, Retry
from cohort.delivery.model import State
from cohort.surfaces.http.app import create_app
from support_delivery import ADMIN_KEY, VIEWER_KEY, House, house
from support_server import serving

RUNNING = "ro_k3v9q2m7x4c8b5nt"
ENDED = "ro_h7w2p9d4s6f3j8ka"
PAGE = {"accept": "text/html"}
PAGES = [
    "/",
    "/services/support",
    "/services/billing",
    "/rollouts",
    f"/rollouts/{RUNNING}",
    f"/rollouts/{ENDED}",
    "/rollouts/ro_b2c4d6e8f3g5h7jk",
    f"/rollouts/{RUNNING}/promote",
    "/services/support/rollback",
    "/releases/v2?service=support",
    "/plans",
    "/services/support/routing",
    "/services/support/cache",
]


@pytest.fixture
def home() -> House:
    return house()


@pytest.fixture
def client(home: House) -> Iterator[TestClient]:
    app = create_app(home.control)
    with TestClient(app, base_url="http://127.0.0.1:8710", raise_server_exceptions=False, headers=PAGE, follow_redirects=False) as made:
        yield made


@pytest.fixture
def signed_in(client: TestClient) -> TestClient:
    assert client.post("/login", data={"key": ADMIN_KEY}).status_code == 303
    return client


@pytest.fixture(scope="module")
def onlooker() -> Iterator[TestClient]:
    """Signed in to one application, for the tests that change nothing."""
    app = create_app(house().control)
    with TestClient(app, base_url="http://127.0.0.1:8710", headers=PAGE, follow_redirects=False) as made:
        made.post("/login", data={"key": ADMIN_KEY})
        yield made


def token(page: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found is not None
    return found[1]


class _Shape(HTMLParser):
    """Counts what a page must not have, and checks that its ids are unique."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.inline: list[str] = []
        self.foreign: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        self.scripts += tag == "script"
        if "id" in names:
            self.ids.append(str(names["id"]))
        if tag == "style" or "style" in names or any(name.startswith("on") for name in names):
            self.inline.append(tag)
        for name in ("src", "href", "action"):
            if str(names.get(name, "/")).startswith(("http", "//", "data:")):
                self.foreign.append(str(names[name]))


@pytest.mark.parametrize("path", PAGES)
def test_every_page_renders_without_anything_inline_or_from_elsewhere(onlooker: TestClient, path: str) -> None:
    answer = onlooker.get(path)
    assert answer.status_code == 200, answer.text
    shape = _Shape()
    shape.feed(answer.text)
    assert len(shape.ids) == len(set(shape.ids))
    assert (shape.inline, shape.foreign, shape.scripts) == ([], [], 1)
    assert len(re.findall("<h1", answer.text)) == 1
    assert "None" not in re.sub(r"<[^>]*>", " ", answer.text)


@pytest.mark.parametrize("path", PAGES)
def test_whoever_is_not_signed_in_is_sent_to_sign_in_and_back(client: TestClient, path: str) -> None:
    refused = client.get(path)
    assert refused.status_code == 303
    entered = client.post("/login", data={"key": ADMIN_KEY, "next": path})
    assert entered.headers["location"] == path


def test_the_cookie_is_kept_from_scripts_and_from_other_sites(client: TestClient) -> None:
    cookie = client.post("/login", data={"key": ADMIN_KEY}).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/" in cookie
    assert ADMIN_KEY not in cookie


@pytest.mark.parametrize("address", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nb"])
def test_signing_in_never_leads_to_another_site(client: TestClient, address: str) -> None:
    assert client.post("/login", data={"key": ADMIN_KEY, "next": address}).headers["location"] == "/"


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}])
def test_a_sign_in_form_of_another_site_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.post("/login", data={"key": ADMIN_KEY}, headers=headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_behind_a_proxy_that_ends_tls_signing_in_works_and_the_cookie_stays_on_tls(client: TestClient) -> None:
    entered = client.post("/login", data={"key": ADMIN_KEY}, headers={"origin": "https://127.0.0.1:8710", "sec-fetch-site": "same-origin"})
    assert entered.status_code == 303
    assert "; Secure" in entered.headers["set-cookie"]
    assert "Secure" not in client.post("/login", data={"key": ADMIN_KEY}).headers["set-cookie"]


def test_signing_in_always_makes_a_new_session(client: TestClient) -> None:
    client.cookies.set("cohort_session", "chosen-by-somebody-else")
    first, second = (client.post("/login", data={"key": ADMIN_KEY}).cookies["cohort_session"] for _ in range(2))
    assert len({"chosen-by-somebody-else", first, second}) == 3


def test_wrong_keys_are_told_and_too_many_are_too(client: TestClient) -> None:
    for _ in range(5):
        answer = client.post("/login", data={"key": "ck_wrong"})
        assert answer.status_code == 401
        assert "<strong>This is not a key in force.</strong> Use the key that <code>cohort up</code> printed." in answer.text
    blocked = client.post("/login", data={"key": ADMIN_KEY})
    assert blocked.status_code == 429
    assert "Wait a minute" in blocked.text


def test_signing_out_ends_the_session_and_needs_its_token(signed_in: TestClient) -> None:
    csrf = token(signed_in.get("/").text)
    assert signed_in.post("/logout", data={"csrf": "wrong"}).status_code == 403
    cookie = signed_in.cookies["cohort_session"]
    assert signed_in.post("/logout", data={"csrf": csrf}).status_code == 303
    assert signed_in.get("/", headers={"cookie": f"cohort_session={cookie}"}).status_code == 303


def test_a_button_acts_with_the_revision_that_was_seen(signed_in: TestClient, home: House) -> None:
    csrf = token(signed_in.get(f"/rollouts/{RUNNING}").text)
    answer = signed_in.post(f"/rollouts/{RUNNING}/pause", data={"csrf": csrf, "revision": "4"})
    assert answer.headers["location"] == f"/rollouts/{RUNNING}?done=pause"
    ((verb, _, act),) = home.rollouts.acts
    assert (verb, act.actor, act.revision) == ("pause", "first-key", 4)
    assert "Paused: v2 stays on 5\u00a0% of support" in signed_in.get(answer.headers["location"]).text


@pytest.mark.parametrize("csrf", ["", "wrong", "csrf-99"])
@pytest.mark.parametrize("path", [f"/rollouts/{RUNNING}/pause", f"/rollouts/{RUNNING}/rollback", "/services/support/rollback"])
def test_a_form_without_the_sessions_token_changes_nothing(signed_in: TestClient, home: House, path: str, csrf: str) -> None:
    answer = signed_in.post(path, data={"csrf": csrf, "reason": "x"})
    assert (answer.status_code, home.rollouts.acts) == (403, [])


def test_a_session_needs_its_token_on_the_api_too(signed_in: TestClient, home: House) -> None:
    refused = signed_in.post(f"/api/v1/rollouts/{RUNNING}/pause", json={})
    assert (refused.status_code, refused.json()["code"], home.rollouts.acts) == (403, "CSRF_REFUSED", [])
    csrf = token(signed_in.get("/").text)
    assert signed_in.post(f"/api/v1/rollouts/{RUNNING}/pause", json={}, headers={"x-csrf-token": csrf}).status_code == 200


def test_the_second_of_two_operators_is_told_and_can_decide_again(signed_in: TestClient, home: House) -> None:
    csrf = token(signed_in.get(f"/rollouts/{RUNNING}/promote").text)
    home.rollouts.put(replace(home.rollouts.show(RUNNING), revision=5, state=State.PAUSED))
    answer = signed_in.post(f"/rollouts/{RUNNING}/promote", data={"csrf": csrf, "revision": "4", "reason": "looks fine"})
    assert answer.status_code == 409
    assert "is at revision 5, not 4" in answer.text
    assert 'name="revision" value="5"' in answer.text
    assert 'value="looks fine"' in answer.text
    assert home.rollouts.acts == []


def test_a_viewer_sees_the_commands_and_no_buttons(client: TestClient, home: House) -> None:
    client.post("/login", data={"key": VIEWER_KEY})
    page = client.get(f"/rollouts/{RUNNING}").text
    assert "<i>cohort</i> <i>rollout</i> <i>pause</i>" in page
    assert f'action="/rollouts/{RUNNING}' not in page
    answer = client.post(f"/rollouts/{RUNNING}/pause", data={"csrf": token(page)})
    assert (answer.status_code, home.rollouts.acts) == (403, [])


def test_rolling_back_a_service_wants_a_reason_and_says_what_serves_now(signed_in: TestClient, home: House) -> None:
    csrf = token(signed_in.get("/services/support/rollback").text)
    refused = signed_in.post("/services/support/rollback", data={"csrf": csrf, "reason": "  "})
    assert (refused.status_code, home.rollouts.acts) == (422, [])
    answer = signed_in.post("/services/support/rollback", data={"csrf": csrf, "reason": "users complain", "to": ""})
    assert "support serves v1" in answer.text
    assert "Verified" in answer.text


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("/services/support", "cohort rollback support --reason"),
        (f"/rollouts/{RUNNING}", f"cohort rollout pause {RUNNING}"),
        (f"/rollouts/{RUNNING}", f"cohort rollout abort {RUNNING} --reason"),
        (f"/rollouts/{ENDED}", f"cohort rollout replay {ENDED}"),
        ("/services/billing", "cohort rollout start billing --to VERSION"),
    ],
)
def test_the_command_that_does_the_same_is_shown(onlooker: TestClient, path: str, command: str) -> None:
    text = onlooker.get(path).text.replace("</i>", "").replace("<i>", "")
    assert command in text


def test_without_services_the_first_page_says_how_to_begin() -> None:
    home = house([], [])
    with TestClient(create_app(home.control), base_url="http://127.0.0.1", headers=PAGE) as client:
        client.post("/login", data={"key": ADMIN_KEY})
        assert "<i>cohort</i> <i>release</i> <i>create</i>" in client.get("/").text
        assert "No rollouts yet" in client.get("/rollouts").text


def test_hostile_names_prompts_and_reasons_are_shown_and_never_run() -> None:
    bad = views.HOSTILE
    ref = replace(views.ref("support", "v2"), version=bad)
    gate = replace(views.gates()[0], name=bad, text=bad)
    entry = replace(views.events()[0], reason=bad, actor=bad, kind=bad)
    stage = replace(views.stages(1)[1], name=bad, certificate_text=bad)
    stages = (views.stages(1)[0], stage, *views.stages(1)[2:])
    view = views.rollout(
        candidate=ref,
        plan=bad,
        gates=(gate,),
        events=(entry,),
        stages=stages,
        waiting_for=(bad,),
        created_by=bad,
        arms=tuple(replace(arm, release=ref) for arm in views.arms()),
    )
    ended = replace(views.harmful("ro_" + "e" * 16), reason=bad, summary={bad: bad, "note": bad})
    home = house([view, ended], [replace(views.service(bad, view), candidate=ref)])
    home.registry.releases = [
        views.release("support", bad, prompt=bad, tags=(bad,), created_by=bad, manifest={bad: bad}, digest=ref.digest)
    ]
    with TestClient(create_app(home.control), base_url="http://127.0.0.1", headers=PAGE) as client:
        client.post("/login", data={"key": ADMIN_KEY})
        paths = ["/", "/rollouts", f"/rollouts/{view.id}", f"/rollouts/{ended.id}", f"/rollouts/{view.id}/abort", f"/releases/{ref.digest}"]
        for path in [*paths, f"/services/{bad.replace('/', '%2F')}", "/services/%3Cscript%3Ealert(1)%3C%2Fscript%3E"]:
            text = client.get(path).text
            assert "<img" not in text, path
            assert "<script>" not in text, path
            assert "49" not in re.findall(r"&quot;&amp;(\d+)", text), path


def test_an_error_is_a_page_for_a_person_and_a_document_for_a_program(signed_in: TestClient, home: House) -> None:
    page = signed_in.get("/services/nobody")
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "There is no service" in page.text
    assert signed_in.get("/services/nobody", headers={"accept": "*/*"}).headers["content-type"] == "application/problem+json"
    home.rollouts.down = CohortError("DATABASE_UNAVAILABLE", "the database does not answer", retry=Retry.SAFE, hint="Look at the disk.")
    broken = signed_in.get("/")
    assert broken.status_code == 503
    assert "Look at the disk." in broken.text


def test_static_files_are_kept_by_their_version(client: TestClient) -> None:
    address = re.search(r'href="(/static/cohort\.css\?v=[0-9a-f]+)"', client.get("/login").text)
    assert address is not None
    assert "immutable" in client.get(address[1]).headers["cache-control"]
    assert client.get("/static/cohort.css").headers["cache-control"] == "no-cache"
    assert client.get("/static/..%2Fpages.py").status_code == 404


def live_events(response: httpx2.Response) -> Iterator[tuple[str, dict[str, str]]]:
    """All but the badge in the bar, which is on every page."""
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            data = json.loads(line.removeprefix("data: "))
            if data.get("id") != "badge":
                yield name, data


def test_a_live_page_brings_every_fragment_first_and_then_only_what_changed(home: House) -> None:
    with serving(home.control) as url, httpx2.Client(base_url=url, timeout=10) as client:
        client.post("/login", data={"key": ADMIN_KEY})
        with client.stream("GET", f"/live/rollouts/{RUNNING}") as response:
            events = live_events(response)
            first = [next(events)[1]["id"] for _ in range(8)]
            assert first == ["headline", "ladder", "evidence", "waiting", "actions", "arms", "charts", "events"]
            later = views.NOW_US + 5 * views.SECOND_US
            home.rollouts.put(replace(home.rollouts.show(RUNNING), waiting_for=("nothing but time",), now_us=later, floor_left_s=9.0))
            name, fragment = next(events)
            assert (name, fragment["id"]) == ("fragment", "waiting")
            assert "nothing but time" in fragment["html"]
        with client.stream("GET", "/live/services") as response:
            assert next(live_events(response))[1]["id"] == "services"


def test_the_live_page_of_a_rollout_long_over_ends(home: House) -> None:
    over = replace(views.promoted(), now_us=views.NOW_US + 3600 * views.SECOND_US)
    home.rollouts.put(over)
    with serving(home.control) as url, httpx2.Client(base_url=url, timeout=10) as client:
        client.post("/login", data={"key": ADMIN_KEY})
        with client.stream("GET", f"/live/rollouts/{over.id}") as response:
            assert [name for name, _ in live_events(response)][-1] == "end"


def test_a_live_page_ends_when_its_session_does(home: House) -> None:
    with serving(home.control) as url, httpx2.Client(base_url=url, timeout=10) as client:
        client.post("/login", data={"key": ADMIN_KEY})
        with client.stream("GET", "/live/services") as response:
            events = live_events(response)
            next(events)
            home.access.sign_out(client.cookies["cohort_session"])
            home.rollouts.put(replace(home.rollouts.show(RUNNING), revision=9))
            assert list(events) == []
        assert client.get("/live/services").status_code == 401


def test_the_page_of_caches_shows_hits_beside_false_hits_and_other_thresholds(signed_in: TestClient, home: House) -> None:
    page = signed_in.get("/services/support/cache").text
    for words in (
        "57.9",
        "of 200 drawn, 4 unclear",
        "0.99",
        "objections of the guard numbers",
        "<i>kill</i> <i>cache.semantic</i>",
        "Switched off",
        "Too few samples",
        "Steady",
        "Would be found",
        "in force",
    ):
        assert words in page.replace("\u202f", " ").replace("\xa0", " "), words
    assert "Too many false hits" not in page
    assert "Drifted" not in page
    home.caches.fallen = 200
    assert "Drifted" in signed_in.get("/services/support/cache").text
    home.caches.other = 20
    assert "Too many false hits" in signed_in.get("/services/support/cache").text
    home.caches.away = True
    page = signed_in.get("/services/support/cache").text
    assert "The gateway does not answer" in page
    assert "out of reach" in page
    assert 'href="/services/support/cache"' in signed_in.get("/services/support").text
    assert 'href="/services/billing/cache"' not in signed_in.get("/services/billing").text
