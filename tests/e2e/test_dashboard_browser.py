"""The dashboard in a real browser: live without reloading, forms, without scripts, on a phone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import support_views as views
from cohort.delivery.clients import Terms
from cohort.delivery.model import RolloutView, State
from cohort.gateway.contract import Call
from support_delivery import ADMIN_KEY, House, house
from support_server import serving

sync_api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")

CHROMIUM = Path("/usr/bin/chromium")
MISSING = f"{CHROMIUM} is not there: install the package chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
RUNNING = "ro_k3v9q2m7x4c8b5nt"
ENDED = "ro_h7w2p9d4s6f3j8ka"
LONG = "customer-support-assistant-for-the-european-market-with-a-very-long-name"
WAIT_MS = 10_000
POINTED_MAX = 100
WHERE = """selector => {
  const shown = document.querySelector(selector);
  shown.scrollIntoView({block: "center"});
  const box = shown.getBoundingClientRect();
  return [box.x + 1, box.y + box.height / 2];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield opened
        opened.close()


@dataclass(slots=True)
class Visit:
    """A signed-in page of `home`; `complaints` is what the browser logged."""

    home: House
    url: str
    page: Any
    complaints: list[str]

    def open(self, path: str) -> None:
        self.page.goto(self.url + path)

    def put(self, view: RolloutView) -> None:
        self.home.rollouts.put(view)

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector)).replace("\u00a0", " ")

    def wait_for_text(self, selector: str, part: str) -> None:
        script = "([selector, part]) => document.querySelector(selector)?.textContent.replaceAll('\\u00a0', ' ').includes(part)"
        self.page.wait_for_function(script, arg=[selector, part], timeout=WAIT_MS)


@contextmanager
def visit(browser: Any, home: House | None = None, **options: Any) -> Iterator[Visit]:
    home = home or house()
    with serving(home.control) as url:
        context = browser.new_context(**options)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        page.fill("#key", ADMIN_KEY)
        page.click("main button")
        page.wait_for_url(url + "/")
        yield Visit(home, url, page, complaints)
        context.close()


def test_a_rollout_moves_on_before_the_eyes_of_its_reader(browser: Any) -> None:
    with visit(browser) as there:
        there.open(f"/rollouts/{RUNNING}")
        there.wait_for_text("#link", "Live")
        there.page.evaluate("window.sameDocument = true")
        moved = replace(there.home.rollouts.show(RUNNING), stage=2, stages=views.stages(2), revision=5)
        there.put(moved)
        there.wait_for_text("h1", "Rolling out v2 to 25 % of support: 2 of 4 stages done")
        assert there.page.title().startswith("Rolling out v2 to 25")
        there.put(replace(views.harmful(RUNNING), now_us=views.NOW_US))
        there.wait_for_text("h1", "v3 was rolled back; v1 serves all of support")
        there.wait_for_text("#headline", "14 of 171")
        assert there.page.evaluate("window.sameDocument") is True
        assert there.complaints == []


def test_pausing_and_resuming_with_the_buttons(browser: Any) -> None:
    with visit(browser) as there:
        there.open(f"/rollouts/{RUNNING}")
        there.page.click("#do-pause")
        there.wait_for_text("h1", "Paused: v2 stays on 5 % of support")
        there.page.click("#do-resume")
        there.wait_for_text("h1", "Rolling out v2 to 5 % of support")
        assert [verb for verb, _, _ in there.home.rollouts.acts] == ["pause", "resume"]
        assert there.complaints == []


def test_the_focus_stays_where_it_was_when_a_fragment_is_replaced(browser: Any) -> None:
    with visit(browser) as there:
        there.open(f"/rollouts/{RUNNING}")
        there.wait_for_text("#link", "Live")
        there.page.focus("#do-rollback")
        there.page.evaluate("scrollTo(0, 300)")
        there.put(replace(there.home.rollouts.show(RUNNING), state=State.PAUSED, revision=5))
        there.wait_for_text("#actions", "Resume")
        assert there.page.evaluate("document.activeElement.id") == "do-rollback"
        assert there.page.evaluate("scrollY") == 300


def test_a_list_of_calls_stands_still_while_its_reader_wants_that(browser: Any) -> None:
    call = Call("call", "gw-1", 7, 1, views.NOW_US, "support", "rel_x", "ab" * 16, total_us=900, first_us=200, route="before")
    with visit(browser) as there:
        take = there.home.control.accounts.recent.take
        take([call])
        there.open("/requests")
        there.wait_for_text("#link", "Live")
        there.page.click("#pause")
        take([replace(call, seq=2, route="meanwhile")])
        there.put(views.rollout())
        there.wait_for_text("#pause", "newer ones wait")
        assert "meanwhile" not in there.text("#calls")
        there.page.click("#pause")
        there.wait_for_text("#calls", "meanwhile")
        assert there.text("#pause") == "Pause"


def test_two_operators_are_told_of_each_other(browser: Any) -> None:
    with visit(browser) as there:
        there.open(f"/rollouts/{RUNNING}/promote")
        there.put(replace(there.home.rollouts.show(RUNNING), revision=5, state=State.PAUSED))
        there.page.fill("#reason", "good enough")
        there.page.click("main button")
        there.wait_for_text("[role=alert]", "is at revision 5, not 4")
        there.page.click("main button")
        there.wait_for_text("[role=status].notice", "Promoted by one stage.")


def test_a_lost_connection_is_shown_and_taken_up_again(browser: Any) -> None:
    home = house()
    with visit(browser, home) as there:
        there.open("/")
        there.wait_for_text("#link", "Live")
        cookie = there.page.context.cookies()[0]["value"]
        session = home.access.session(cookie)
        assert session is not None
        home.access.sign_out(cookie)
        home.rollouts.put(replace(home.rollouts.show(RUNNING), revision=5))
        there.wait_for_text("#link", "Connection lost")
        home.access.restore(cookie, session)
        there.wait_for_text("#link", "Live")


def test_a_page_outlives_a_restart_of_control(browser: Any) -> None:
    home = house()
    with serving(home.control) as url:
        context = browser.new_context()
        page = context.new_page()
        page.goto(url)
        page.fill("#key", ADMIN_KEY)
        page.click("main button")
        page.goto(f"{url}/rollouts/{RUNNING}")
        page.wait_for_function("() => document.getElementById('link').textContent === 'Live'")
    page.wait_for_function("() => document.getElementById('link').textContent.startsWith('Connection lost')")
    home.rollouts.put(replace(home.rollouts.show(RUNNING), state=State.PAUSED, revision=5))
    with serving(home.control, int(url.rpartition(":")[2])):
        page.wait_for_function("() => document.querySelector('h1').textContent.startsWith('Paused')")
        assert page.inner_text("#link") == "Live"
        context.close()


def test_the_pointer_reads_a_chart_out(browser: Any) -> None:
    with visit(browser, viewport={"width": 1280, "height": 900}) as there:
        there.open(f"/rollouts/{RUNNING}")
        for step in range(POINTED_MAX):  # the chart may be drawn again between looking where it is and pointing there
            x, y = there.page.evaluate(WHERE, "#chart-traffic .hit:nth-of-type(60)")
            there.page.mouse.move(x + step % 2, y)
            if "in: v1" in there.text("#chart-traffic .readout"):
                break
        assert "v2" in there.text("#chart-traffic .readout")
        there.put(replace(there.home.rollouts.show(RUNNING), points=views.points(bad=0.02)))
        there.page.mouse.move(5, 5)
        there.page.wait_for_selector("#chart-traffic .readout:empty", state="attached")


def test_everything_works_without_scripts(browser: Any) -> None:
    with visit(browser, java_script_enabled=False) as there:
        there.open(f"/rollouts/{RUNNING}")
        assert "Rolling out v2" in there.text("h1")
        assert there.page.locator(".chart path").count() >= 6
        there.page.click("#do-pause")
        assert "Paused" in there.text("h1")
        there.page.click("#do-rollback")
        there.page.fill("#reason", "users complain")
        there.page.click("main button")
        assert "was rolled back" in there.text("h1")
        there.open("/services/support/rollback")
        there.page.fill("#reason", "still complaining")
        there.page.click("main button")
        assert "support serves v1" in there.text("h1")
        assert there.page.locator("#link:visible").count() == 0


PATHS = ["/login", "/", f"/services/{LONG}", "/rollouts", f"/rollouts/{RUNNING}", f"/rollouts/{ENDED}", "/rollouts/ro_long000000000000",
         f"/rollouts/{RUNNING}/abort", "/releases/v2?service=support", "/plans", "/services/nobody",
         "/requests", "/spending", "/services/support/cache"]  # fmt: skip


def test_no_page_is_wider_than_its_window(browser: Any) -> None:
    long = replace(views.rollout("ro_long000000000000", LONG), candidate=views.ref(LONG, "2026.11.20-rc.1+experiment-with-shorter-prompts"))
    home = house(
        [views.rollout(), views.harmful(), long],
        [views.service("support", views.rollout()), views.service(LONG, long), views.idle()],
    )
    key = home.control.clients.create("shop", Terms(("support",), team="web", budget_usd_micro_per_day=1), "anna").client
    call = Call("call", "gw-1", 7, 1, views.NOW_US, LONG, "rel_x", "ab" * 16, total_us=900_000, route="main", key=key.id, degraded=True)
    home.control.accounts.recent.take([call])
    with visit(browser, home) as there:
        for path in PATHS:
            there.open(path)
            for width in (360, 768, 1280):
                there.page.set_viewport_size({"width": width, "height": 740})
                wider = there.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                assert wider <= 0, f"{path} is {wider} px wider than a window of {width} px"


def test_the_keyboard_reaches_every_button_and_shows_where_it_is(browser: Any) -> None:
    with visit(browser) as there:
        there.open(f"/rollouts/{RUNNING}")
        reached = set()
        for _ in range(40):
            there.page.keyboard.press("Tab")
            reached.add(there.page.evaluate("document.activeElement.id"))
            outline = there.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid", there.page.evaluate("document.activeElement.outerHTML")
            if "do-abort" in reached:
                break
        assert {"do-pause", "do-promote", "do-rollback", "do-abort"} <= reached
