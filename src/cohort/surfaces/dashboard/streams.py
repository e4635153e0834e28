"""Live pages: the marked fragments of a page, rendered here, sent when they changed.

`event: fragment` carries {"id", "html"}; `event: end` says that nothing more will change. The moving text of relative times is the
browser's business, so a fragment is sent again only for what else is in it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping

import anyio
from fastapi import APIRouter, Request
from starlette.responses import Response

from cohort.surfaces.dashboard.rendering import questions, render
from cohort.surfaces.http.callers import COOKIE, Caller, Face, Reader
from cohort.surfaces.http.encoding import to_json
from cohort.surfaces.http.live import HEARTBEAT_S, Feed, event, stream_response
from cohort.surfaces.http.ports import ControlFace

router = APIRouter(include_in_schema=False)

ROLLOUT_FRAGMENTS = ("headline", "ladder", "evidence", "waiting", "actions", "arms", "charts", "events")
SETTLES_US = 120_000_000
PAUSE_S = 0.5
"""Between two renderings of one page, however fast things change."""
MOVING_TIME = re.compile(r"(<time[^>]*>)[^<]*")

Look = Callable[[], tuple[dict[str, str], bool]]
"""The fragments as they are now, and whether they are final."""


@router.get("/live/services")
async def live_services(request: Request, control: Face, caller: Reader) -> Response:
    return stream(request, control, caller, lambda: (services_fragments(control, caller), False))


@router.get("/live/services/{name}")
async def live_service(request: Request, name: str, control: Face, caller: Reader) -> Response:
    return stream(request, control, caller, lambda: (service_fragments(control, caller, name), False))


@router.get("/live/rollouts/{rollout}")
async def live_rollout(request: Request, rollout: str, control: Face, caller: Reader) -> Response:
    return stream(request, control, caller, lambda: rollout_fragments(control, caller, rollout))


def services_fragments(control: ControlFace, caller: Caller) -> dict[str, str]:
    shown = {"services": control.rollouts.services(), "now_us": control.clock.now_us(), "visitor": caller}
    return {"services": render("fragments/services.html", **shown)}


def service_fragments(control: ControlFace, caller: Caller, name: str) -> dict[str, str]:
    shown = {"service": control.rollouts.service(name), "now_us": control.clock.now_us(), "visitor": caller}
    return {"serving": render("fragments/serving.html", **shown)}


def rollout_fragments(control: ControlFace, caller: Caller, rollout: str) -> tuple[dict[str, str], bool]:
    """Final once a rollout has been over for a while: its last figures come in after its end."""
    view = control.rollouts.show(rollout)
    shown = {"view": view, "now_us": view.now_us, "visitor": caller}
    return {
        name: render(f"fragments/{name}.html", **shown) for name in ROLLOUT_FRAGMENTS
    }, view.ended_us is not None and view.now_us - view.ended_us > SETTLES_US


def stream(request: Request, control: ControlFace, caller: Caller, look: Look) -> Response:
    cookie = request.cookies.get(COOKIE)

    def still_signed_in() -> bool:
        return caller.csrf is None or (cookie is not None and control.access.session(cookie) is not None)

    feed: Feed = request.app.state.feed
    return stream_response(feed, _fragments(feed, look, lambda: badge_fragment(control), still_signed_in))


def badge_fragment(control: ControlFace) -> dict[str, str]:
    """How many questions wait for a person, on every live page."""
    return {"badge": render("fragments/badge.html", questions=questions(control))}


async def _fragments(
    feed: Feed, look: Look, badge: Callable[[], dict[str, str]], still_signed_in: Callable[[], bool]
) -> AsyncIterator[bytes]:
    sent: dict[str, str] = {}
    while not feed.closed and await feed.ask(still_signed_in):
        turn = feed.turn
        fragments, final = await feed.ask(look)
        fragments |= await feed.ask(badge)
        for piece in _changed(fragments, sent):
            yield piece
        if final:
            yield event("end", b"{}")
            return
        await anyio.sleep(PAUSE_S)
        if not await feed.changed(turn, HEARTBEAT_S):
            yield b": still here\n\n"


def _changed(fragments: Mapping[str, str], sent: dict[str, str]) -> list[bytes]:
    """The events for what differs from `sent`, which is brought up to date."""
    pieces = []
    for name, html in fragments.items():
        still = MOVING_TIME.sub(r"\1", html)
        if sent.get(name) != still:
            sent[name] = still
            pieces.append(event("fragment", to_json({"id": name, "html": html})))
    return pieces
