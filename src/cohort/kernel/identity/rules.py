"""What an agent may be called and given, decided without a clock or a store."""

from __future__ import annotations

import re
from dataclasses import asdict
from urllib.parse import urlsplit

from cohort.base.errors import CohortError
from cohort.base.ids import WorkspaceId
from cohort.kernel.face import NewAgent
from cohort.kernel.model import Limits
from cohort.kernel.scopes import SCOPES_MAX, own_scope

NAME_CHARS_MAX = 63
TEXT_CHARS_MAX = 2000
ACTOR_CHARS_MAX = 63
TASK_CHARS_MAX = 200
ORIGINS_MAX = 100
ORIGIN_CHARS_MAX = 300
LIMITS_MAX = Limits(
    disk_bytes=1 << 40,
    files=100_000_000,
    memory_bytes=1 << 40,
    processes=100_000,
    cpu_cores=1024.0,
    command_s=86_400.0,
    output_bytes=1 << 30,
    calls_per_minute=1_000_000,
    cpu_s_per_day=86_400.0 * 1024,
    egress_bytes_per_day=1 << 50,
)
"""More than this is a mistake of the person who wrote it."""
PORTS = {"http": 80, "https": 443}

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")
_SOME_WORKSPACE = WorkspaceId("ws_" + "a" * 16)


def check_new(new: NewAgent) -> NewAgent:
    """`new` with its origins in canonical form.

    Raises:
        CohortError FIELD_INVALID, SCOPE_UNKNOWN: names the field.
    """
    if not _NAME.fullmatch(new.name) or len(new.name) > NAME_CHARS_MAX:
        hint = f"Use 1 to {NAME_CHARS_MAX} lower-case letters, digits and single hyphens, a letter first."
        raise CohortError("FIELD_INVALID", f"{new.name[:100]!r}: not a name of an agent", field="name", hint=hint)
    check_text("description", new.description)
    check_limits(new.limits)
    check_scopes(new.scopes)
    if len(new.egress) > ORIGINS_MAX:
        raise CohortError("FIELD_INVALID", f"{len(new.egress)} origins", field="egress", hint=f"Give at most {ORIGINS_MAX}.")
    origins = tuple(dict.fromkeys(canonical_origin(text) for text in new.egress))
    return NewAgent(new.name, tuple(new.scopes), new.autonomy, new.limits, origins, new.description)


def check_scopes(texts: tuple[str, ...]) -> None:
    """Errors: SCOPE_UNKNOWN, FIELD_INVALID."""
    if len(texts) > SCOPES_MAX:
        raise CohortError("FIELD_INVALID", f"{len(texts)} scopes", field="scopes", hint=f"Give at most {SCOPES_MAX}.")
    for text in texts:
        own_scope(text, _SOME_WORKSPACE)


def check_limits(limits: Limits) -> None:
    """Errors: FIELD_INVALID."""
    most = asdict(LIMITS_MAX)
    for name, value in asdict(limits).items():
        if not 0 < value <= most[name]:
            hint = f"Use more than 0 and at most {most[name]}."
            raise CohortError("FIELD_INVALID", f"limits.{name}: {value!r}", field=f"limits.{name}", hint=hint)


def check_text(field: str, text: str, most: int = TEXT_CHARS_MAX) -> str:
    """Errors: FIELD_INVALID (too long, or bytes that no store holds)."""
    if len(text) > most or "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise CohortError("FIELD_INVALID", f"{field}: cannot be kept", field=field, hint=f"Use at most {most} characters of plain text.")
    return text


def check_actor(actor: str) -> str:
    """Errors: FIELD_INVALID."""
    if not actor:
        raise CohortError("FIELD_INVALID", "nobody is named as the one who does this", field="actor", hint="Say who does it.")
    return check_text("actor", actor, ACTOR_CHARS_MAX)


def canonical_origin(text: str) -> str:
    """`https://host:port`, the host in lower case, the port always written. Errors: FIELD_INVALID."""
    try:
        parts = urlsplit(text if len(text) <= ORIGIN_CHARS_MAX else "")
        port = parts.port
    except ValueError as error:
        raise _not_an_origin(text) from error
    host = (parts.hostname or "").lower()
    rest = (parts.path.strip("/"), parts.query, parts.fragment, parts.username, parts.password)
    if parts.scheme not in PORTS or not _HOST.fullmatch(host) or any(rest) or port == 0:
        raise _not_an_origin(text)
    return f"{parts.scheme}://{host}:{port or PORTS[parts.scheme]}"


def _not_an_origin(text: str) -> CohortError:
    return CohortError(
        "FIELD_INVALID", f"{text[:100]!r}: not an origin", field="egress", hint="Write it as `https://host` or `https://host:port`."
    )
