"""Agents, questions and records in words, as the pages show them. Pure: what an agent wrote is text like any other, and escaped by the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from cohort.kernel.face import ProbeRow, SafetyCounts, Verification
from cohort.kernel.model import AgentState, Approval, ApprovalState, Autonomy, GrantScope, Level, Limits, Risk
from cohort.surfaces.dashboard.wording import GAP, NO_DATA, absolute, count, duration

UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))

AGENT_WORDS = {AgentState.ACTIVE: "Active", AgentState.SUSPENDED: "Suspended", AgentState.REVOKED: "Revoked"}
AGENT_TONES = {AgentState.ACTIVE: "safe", AgentState.SUSPENDED: "wait", AgentState.REVOKED: "harm"}
RISK_TONES = {Risk.LOW: "plain", Risk.MEDIUM: "plain", Risk.HIGH: "wait", Risk.CRITICAL: "harm"}
APPROVAL_WORDS = {
    ApprovalState.PENDING: "Waits",
    ApprovalState.APPROVED: "Approved",
    ApprovalState.DENIED: "Denied",
    ApprovalState.EXPIRED: "Expired",
    ApprovalState.CONSUMED: "Approved and used",
    ApprovalState.WITHDRAWN: "Withdrawn",
}
APPROVAL_TONES = {
    ApprovalState.PENDING: "wait",
    ApprovalState.APPROVED: "safe",
    ApprovalState.DENIED: "harm",
    ApprovalState.EXPIRED: "harm",
    ApprovalState.CONSUMED: "safe",
    ApprovalState.WITHDRAWN: "plain",
}
GRANT_WORDS = {
    GrantScope.ONCE: "This once",
    GrantScope.TASK: "For the rest of this task",
    GrantScope.SESSION: "For the rest of this session",
    GrantScope.STANDING: "As a standing rule",
}
AUTONOMY_WORDS = {
    Autonomy.CONSERVATIVE: "asks for nearly everything",
    Autonomy.STANDARD: "asks from high risk on",
    Autonomy.AGGRESSIVE: "asks for critical acts only",
}
LEVELS = {
    Level.NONE: ("Nothing", "Nothing holds a command. Refused unless the policy names it."),
    Level.LIMITS: ("Limits", "Protects from accidents, not from intent."),
    Level.FILES: ("Files", "Files and TCP are held; processes and memory are not."),
    Level.NAMESPACES: ("Namespaces", "Own view of files, processes and network; memory and disk are soft limits."),
    Level.FULL: ("Full", "Every attack of the list is stopped; memory and disk are hard limits."),
    Level.MACHINE: ("Machine", "A kernel of its own."),
}
INTEGRITY_WORDS = {"verified": "Verified", "broken": "Broken", "no data": "No data"}
INTEGRITY_TONES = {"verified": "safe", "broken": "harm", "no data": "wait"}
KIND_WORDS = {
    "intent": "Allowed",
    "decision": "Decided",
    "approval": "Approval",
    "outcome": "Outcome",
    "quota": "Quota",
    "key": "Key",
    "level": "Isolation",
    "agent": "Agent",
    "token": "Token",
    "workspace": "Workspace",
    "policy": "Policy",
    "checkpoint": "Anchor",
    "note": "Note",
}
EVENT_WORDS = {
    "register": "Agent registered",
    "grant": "Scopes given",
    "revoke_scopes": "Scopes taken",
    "suspend": "Agent suspended",
    "resume": "Agent resumed",
    "trust": "Agent's data trusted again",
    "revoke": "Agent revoked",
    "new_key": "New key",
    "person_key": "New key of a person",
    "person_key_imported": "Key of a person taken in",
    "person_key_revoked": "Key of a person revoked",
    "token_key": "New key that signs tokens",
    "token_flood": "Too many tokens asked for",
    "sign_out": "Signed out",
    "sign_in_refused": "Sign-in refused",
    "refresh_replayed": "Refresh token used twice",
    "revoke_session": "Session ended",
    "client_key": "New key of a client of the gateway",
    "erasure_asked": "Answers to a person to be forgotten",
    "client_key_revoked": "Key of a client of the gateway revoked",
    "budget": "Budget of the gateway set",
    "budget_removed": "Budget of the gateway removed",
    "mint": "Token minted by hand",
    "sign_in": "Signed in",
    "refresh": "Token refreshed",
    "exchange": "Delegated",
    "created": "Workspace created",
    "commit": "Workspace committed",
    "discard": "Workspace discarded",
    "snapshot": "Snapshot kept",
    "restore": "Workspace restored",
    "remove": "Workspace removed",
    "remark": "Remark",
}
APPROVAL_EVENTS = {
    "asked": "{} asked of a person",
    "consumed": "approval of {} used up",
    "rule_used": "{} permitted by a rule",
    "rule_revoked": "rule for {} ended",
}
EVENT_TONES = {"refresh_replayed": "harm", "sign_in_refused": "harm", "token_flood": "harm", "revoke": "harm", "suspend": "wait"}
OUTCOME_TONES = {"done": "safe", "failed": "harm", "refused": "harm", "unknown": "wait", "waiting": "wait"}
ANSWER_TONES = {"approved": "safe", "denied": "harm", "expired": "harm"}
SAID = ("name", "resource", "reason", "text", "anchor", "actor", "by")
"""What of a body is worth a place beside the title, in this order."""
DETAIL_CHARS_MAX = 240
TIME_US_MAX = 250_000_000_000_000_000
"""The year 9892; later ones have no date."""


def bytes_text(value: float | None) -> str:
    """Powers of 1000, as disks are sold."""
    if value is None:
        return NO_DATA
    for size, unit in UNITS:
        if abs(value) >= size:
            return f"{value / size:.3g}{GAP}{unit}"
    return f"{value:.0f}{GAP}B"


def coded(text: str) -> Markup:
    """The kernel's words, what stands between backticks set apart. It writes other people's backticks out, so these are its own."""
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part) for index, part in enumerate(text.split("`"))
    )


def questions_wait(approvals: int) -> str:
    return (
        "Nothing waits for a person"
        if not approvals
        else f"{approvals} question{'s' if approvals != 1 else ''} wait{'s' if approvals == 1 else ''} for a person"
    )


@dataclass(frozen=True, slots=True)
class Line:
    """A record on one line. `detail` may be an agent's text. Whoever edits the log can put anything anywhere, so nothing is taken for granted."""

    title: str
    detail: str
    tone: str
    at_us: int | None = None
    kind: str = ""
    agent: str = ""
    action: str = ""


def record_line(whole: Mapping[str, Any]) -> Line:
    """An entry of the log. One that is no JSON any more says so."""
    if "unreadable" in whole:
        return Line("Unreadable", str(whole["unreadable"])[:DETAIL_CHARS_MAX], "harm")
    kind, body = str(whole.get("kind", "")), whole.get("body")
    said: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    title, tone = _title(kind, said)
    detail = next((str(said[name]) for name in SAID if said.get(name) not in (None, "", title)), "")
    agent, action = (str(whole.get(name) or "") for name in ("agent", "action"))
    return Line(title, detail[:DETAIL_CHARS_MAX], tone, time_of(whole), kind, agent, action)


def time_of(whole: Mapping[str, Any]) -> int | None:
    """When an entry says it was made, if that is a time at all."""
    at_us = whole.get("at_us")
    return at_us if isinstance(at_us, int) and 0 <= at_us < TIME_US_MAX else None


def _title(kind: str, body: Mapping[str, Any]) -> tuple[str, str]:
    what = str(body.get("operation") or "")
    match kind:
        case "intent":
            return f"{what} allowed", "plain"
        case "decision" if body.get("answer") == "ask":
            return f"{what} has to be approved", "wait"
        case "decision":
            return f"{what} refused: {body.get('code')}", "harm"
        case "outcome":
            ended = str(body.get("outcome", "unknown"))
            code = f": {body['code']}" if body.get("code") else ""
            return f"{what or 'action'} {ended}{code}", OUTCOME_TONES.get(ended, "wait")
        case "approval":
            return _approval_title(body)
        case "level":
            return f"Isolation level {body.get('level')}, by {body.get('backend')}", "plain"
        case "policy":
            return ("Policy broken", "harm") if body.get("broken") else ("Policy in force", "plain")
        case _:
            event = str(body.get("event") or body.get("note") or KIND_WORDS.get(kind, kind))
            return EVENT_WORDS.get(event) or event.replace("_", " ").capitalize(), EVENT_TONES.get(event, "plain")


def _approval_title(body: Mapping[str, Any]) -> tuple[str, str]:
    event, what = str(body.get("event", "")), str(body.get("operation", ""))
    if event == "answered":
        answer = str(body.get("answer", ""))
        return f"{what} {answer} by {body.get('approver')}", ANSWER_TONES.get(answer, "plain")
    title = APPROVAL_EVENTS.get(event, "{}: " + event.replace("_", " ")).format(what)
    return title, ANSWER_TONES.get(event, "wait" if event == "asked" else "plain")


def level_title(level: Level) -> str:
    return LEVELS[level][0]


def level_claim(level: Level) -> str:
    return LEVELS[level][1]


def risk_of(approval: Approval) -> Risk:
    return Risk.of(approval.risk)


def integrity_sentence(found: Verification) -> str:
    if found.integrity == "broken":
        where = f" at entry {found.first_bad:,}" if found.first_bad is not None else ""
        return f"The log is broken{where}: {found.why}"
    if found.integrity == "verified":
        return f"All {found.size:,} entries hash to the signed root" + (f" ({found.why})" if found.why else "")
    return "The log is empty, and an empty log is not a verified one"


def complete_sentence(found: Verification) -> str:
    if found.complete:
        return "Every allowed action has an outcome"
    return f"{len(found.open_intents):,} allowed action{'s have' if len(found.open_intents) != 1 else ' has'} no outcome"


def anchored_sentence(found: Verification) -> str:
    if found.anchored_size == 0:
        return "No other place vouches for it"
    return f"Another place vouches for the first {found.anchored_size:,} of {found.size:,} entries"


def probe_tone(row: ProbeRow) -> str:
    return {True: "safe", False: "harm", None: "wait"}[row.stopped]


def probe_word(row: ProbeRow) -> str:
    return {True: "Stopped", False: "Not stopped", None: "Not tried"}[row.stopped]


@dataclass(frozen=True, slots=True)
class Tile:
    label: str
    value: str
    tone: str


def safety_tiles(counts: SafetyCounts) -> list[Tile]:
    """Unknown is never shown as none."""
    tiles = [Tile("Executed", count(counts.executions), "plain")]
    for label, value in (
        ("Bypasses of the gate", counts.bypasses),
        ("Containment violations", counts.containment_violations),
        ("Unauthorised actions", counts.unauthorised),
    ):
        tiles.append(
            Tile(label, "not compared" if value is None else count(value), "wait" if value is None else "safe" if value == 0 else "harm")
        )
    return tiles


@dataclass(frozen=True, slots=True)
class Fact:
    label: str
    value: str


def limit_facts(limits: Limits) -> list[Fact]:
    return [
        Fact("Disk", f"{bytes_text(limits.disk_bytes)}, {count(limits.files)} files"),
        Fact("Memory of a command", bytes_text(limits.memory_bytes)),
        Fact("Processes", count(limits.processes)),
        Fact("Processor", f"{limits.cpu_cores:g} core{'s' if limits.cpu_cores != 1 else ''}, {duration(limits.cpu_s_per_day)} a day"),
        Fact("Time of a command", duration(limits.command_s)),
        Fact("Output of a command", bytes_text(limits.output_bytes)),
        Fact("Actions", f"{count(limits.calls_per_minute)} a minute"),
        Fact("Sent out", f"{bytes_text(limits.egress_bytes_per_day)} a day"),
    ]


def part_of(used: float, most: float) -> float:
    """0 to 100."""
    return 100.0 if most <= 0 else min(100.0, 100.0 * used / most)


def until(at_us: int, now_us: int) -> str:
    return f"{duration((at_us - now_us) / 1e6)} left" if at_us > now_us else f"over since {absolute(at_us)}"


SCOPE_WORDS = {
    "files.read": "Read files",
    "files.write": "Write files",
    "files.delete": "Delete files",
    "system.execute": "Run commands",
    "system.read": "Look at the machine",
    "network.http": "Call other hosts",
    "network.webhook": "Post to webhooks",
    "browser.read": "Read web pages",
    "browser.act": "Act on web pages",
    "browser.download": "Download from web pages",
    "mobile.act": "Act on a phone",
    "database.read": "Read databases",
    "database.write": "Change databases",
    "memory.read": "Read its memory",
    "memory.write": "Write its memory",
    "agents.delegate": "Delegate to other agents",
    "release.propose": "Propose releases",
}
