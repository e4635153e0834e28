"""How an installation is, as `status` says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

import orjson

from cohort.base.settings import DataDir, Settings
from cohort.ops.configurations import EMBEDDINGS, worker_name
from cohort.ops.house import Running, left_behind, running
from cohort.ops.ports import fetch, fetch_at
from cohort.ops.supervisor import Phase, ProcessState


class Health(StrEnum):
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"  # nothing runs here, or nothing answers that could say


@dataclass(frozen=True, slots=True)
class Part:
    """One process. `health` and `ready`: HTTP status of its /health and /ready, None without an answer. `says`: what /ready says, in words.

    `well`: no part of it says that it is not; a process can be ready and have one that is not well, such as an audit log that is read-only.
    """

    name: str
    url: str
    phase: str
    pid: int | None
    deaths: int
    health: int | None
    ready: int | None
    says: tuple[str, ...] = ()
    well: bool = True


@dataclass(frozen=True, slots=True)
class Condition:
    """`supervisor` is None when none runs; `left_behind` are processes of one that was killed."""

    health: Health
    data_dir: str
    supervisor: int | None
    started_us: int | None
    parts: tuple[Part, ...]
    left_behind: tuple[int, ...]


def look(settings: Settings) -> Condition:
    """Ask everything once; takes at most about two seconds."""
    data = settings.data
    now = running(data)
    orphaned = () if now else tuple(found.pid for found in left_behind(data))
    parts = _parts(settings, now) if now or orphaned else ()
    return Condition(judge(now, parts), str(data.root), now.pid if now else None, now.started_us if now else None, parts, orphaned)


def judge(now: Running | None, parts: tuple[Part, ...]) -> Health:
    """Healthy only if a supervisor runs and every process says it is ready and every part of it is well; no supervisor and no process is no answer."""
    if now is None and not parts:
        return Health.UNKNOWN
    well = now is not None and parts and all(part.phase == Phase.READY and part.ready == 200 and part.well for part in parts)
    return Health.HEALTHY if well else Health.UNHEALTHY


def _parts(settings: Settings, now: Running | None) -> tuple[Part, ...]:
    urls = (
        {"control": now.control_url, "gateway": now.gateway_url}
        if now
        else {"control": settings.control_url, "gateway": settings.gateway_url}
    )
    embeddings = now.embeddings_url if now else settings.embeddings.url if settings.embeddings else None
    if embeddings is not None:
        urls[EMBEDDINGS] = embeddings
    states = {state.name: state for state in now.processes} if now else {}
    further = [state.name for state in states.values() if state.name not in urls]
    token = _link_token(settings.data)
    if not further:
        return tuple(_part(name, url, states, token if name == "gateway" else None) for name, url in urls.items())
    workers = [_worker(settings.data, urls["gateway"], number, states, token) for number in range(1, len(further) + 2)]
    return (*(_part(name, url, states) for name, url in urls.items() if name != "gateway"), *workers)


def _link_token(data: DataDir) -> str | None:
    """By which an exposed gateway knows that it may say what is wrong; None where it cannot be read, and the gateway then says less."""
    try:
        return data.link_token.read_text().strip()
    except OSError:
        return None


def _worker(data: DataDir, url: str, number: int, states: Mapping[str, ProcessState], token: str | None) -> Part:
    """One of several workers of the gateway: the port leads to any of them, so each is asked at its own socket, and says what it meets itself."""
    (health, _), (ready, answer) = (fetch_at(data.worker_socket(number), path, token=token) for path in ("/health", "/ready"))
    name = worker_name(number)
    state = states.get(name)
    phase, pid, deaths = (str(state.phase), state.pid, state.deaths) if state is not None else ("unsupervised", None, 0)
    return Part(name, url, phase, pid, deaths, health, ready, words(answer))


def _part(name: str, url: str, states: Mapping[str, object], token: str | None = None) -> Part:
    where = urlsplit(url)
    state = states.get(name)
    (health, _), (ready, answer) = (fetch(where.hostname or "", where.port or 80, path, token=token) for path in ("/health", "/ready"))
    phase, pid, deaths = getattr(state, "phase", "unsupervised"), getattr(state, "pid", None), getattr(state, "deaths", 0)
    return Part(name, url, str(phase), pid, deaths, health, ready, words(answer), _well(answer))


def _well(answer: bytes) -> bool:
    """Whether every part that a /ready of control names is well; one that names none has none that is not."""
    try:
        return all(part["ok"] for part in orjson.loads(answer).get("parts", ()))
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        return True


def words(answer: bytes) -> tuple[str, ...]:
    """What a /ready of control (`parts`) or of the gateway (`reason`, `problems`) says; nothing where it is neither."""
    try:
        body = orjson.loads(answer)
        parts = [f"{part['name']}: {part['detail']}" for part in body.get("parts", ())]
        reason = [body["reason"]] if body.get("reason") else []
        return (*parts, *reason, *body.get("problems", ()))
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        return ()
