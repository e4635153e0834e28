"""Templates: one environment, everything escaped, an undefined name is an error."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from cohort import __version__
from cohort.base.errors import CohortError
from cohort.base.ids import short
from cohort.delivery.model import State
from cohort.kernel.access import Right
from cohort.kernel.model import AgentState, ApprovalState, Risk
from cohort.kernel.scopes import shown_scope
from cohort.surfaces.dashboard import agent_buttons, buttons, charts, scales, wording, wording_kernel
from cohort.surfaces.http.callers import Caller
from cohort.surfaces.http.ports import ControlFace

HERE = Path(__file__).parent
STATIC_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
RANKS = 20
QUESTIONS_MAX = 100


@dataclass(frozen=True, slots=True)
class StaticFile:
    body: bytes
    media_type: str
    version: str


@lru_cache(maxsize=1)
def static_files() -> dict[str, StaticFile]:
    """Our own few files, read once; `version` is part of their address, so they may be kept for ever."""
    found = {}
    for path in sorted((HERE / "static").iterdir()):
        if path.suffix in STATIC_TYPES:
            body = path.read_bytes()
            found[path.name] = StaticFile(body, STATIC_TYPES[path.suffix], hashlib.sha256(body).hexdigest()[:12])
    return found


@lru_cache(maxsize=1)
def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    for word in ("count", "number", "share", "rate", "millis", "took", "money", "duration", "absolute", "machine_time", "event_words"):
        made.filters[word] = getattr(wording, word)
    made.filters["bytes"] = wording_kernel.bytes_text
    made.filters["coded"] = wording_kernel.coded
    made.filters["short"] = short
    made.filters["sparkline"] = charts.sparkline
    made.globals.update(
        wording=wording,
        kw=wording_kernel,
        shown_scope=shown_scope,
        Right=Right,
        Risk=Risk,
        AgentState=AgentState,
        ApprovalState=ApprovalState,
        agent_actions={**agent_buttons.AGENT_BUTTONS, **agent_buttons.WORKSPACE_BUTTONS},
        agent_buttons=agent_buttons.agent_buttons,
        workspace_buttons=agent_buttons.WORKSPACE_BUTTONS,
        State=State,
        static=_static_address,
        ranks=ranks,
        rollout_charts=charts.rollout_charts,
        evidence_scales=scales.evidence_scales,
        actions=buttons.BUTTONS,
        buttons_for=buttons.buttons_for,
        command_for=buttons.command_for,
        manifest_text=manifest_text,
    )
    return made


def render(template: str, **values: Any) -> str:
    return environment().get_template(template).render(**values)


def page(request: Request, template: str, caller: Caller | None, status: int = 200, **values: Any) -> Response:
    """A whole page. `now_us` is the server's time, for every relative time on it."""
    control = request.app.state.control
    everywhere = {"now_us": control.clock.now_us(), "questions": questions(control) if caller is not None else 0}
    text = render(template, visitor=caller, path=request.url.path, product_version=__version__, **everywhere | values)
    return HTMLResponse(text, status)


def questions(control: ControlFace) -> int:
    """How many wait for a person, for the badge; a page does not fail for it."""
    try:
        return len(control.kernel.approvals.list(ApprovalState.PENDING, QUESTIONS_MAX))
    except CohortError:
        return 0


def ranks(pct: float) -> list[float]:
    """How full each of the 20 ranks of a share is, 0 to 1: one rank is 5 % of the units."""
    return [min(1.0, max(0.0, pct * RANKS / 100 - index)) for index in range(RANKS)]


def manifest_text(manifest: Mapping[str, Any]) -> str:
    return orjson.dumps(dict(manifest), option=orjson.OPT_INDENT_2, default=dict).decode()


def _static_address(name: str) -> str:
    return f"/static/{name}?v={static_files()[name].version}"
