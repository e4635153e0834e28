"""What may become of a question, and who may answer it. Values in, values out."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from cohort.base.errors import CohortError
from cohort.kernel.approvals.limits import HOUR_US, NAME_CHARS_MAX, ApprovalLimits
from cohort.kernel.model import Approval, ApprovalState

S = ApprovalState
NEXT: Mapping[ApprovalState, frozenset[ApprovalState]] = {
    S.PENDING: frozenset({S.APPROVED, S.DENIED, S.EXPIRED, S.WITHDRAWN}),
    S.APPROVED: frozenset({S.CONSUMED, S.EXPIRED, S.WITHDRAWN}),
    S.DENIED: frozenset(),
    S.EXPIRED: frozenset(),
    S.CONSUMED: frozenset(),
    S.WITHDRAWN: frozenset(),
}
"""Every change there is. None leads back, and only from `approved` does one lead to `consumed`."""
_AGENTS = ("ag_", "agent:", "spiffe://")


def as_of(approval: Approval, now_us: int) -> Approval:
    """The approval as it is at `now_us`: what is past its time has expired, whether or not that was written down yet."""
    open_ended = approval.state in (S.PENDING, S.APPROVED)
    return replace(approval, state=S.EXPIRED) if open_ended and approval.expires_us <= now_us else approval


def tally(needed: int, answers: Collection[ApprovalState]) -> ApprovalState:
    """What the votes so far come to: one no is a no; a yes needs `needed` people."""
    if S.DENIED in answers:
        return S.DENIED
    said_yes = sum(answer is S.APPROVED for answer in answers)
    return S.APPROVED if said_yes >= max(1, needed) else S.PENDING


def check_open(approval: Approval) -> None:
    """Refuse to answer what cannot be answered any more; `approval` as of now.

    Raises:
        CohortError APPROVAL_EXPIRED, APPROVAL_DECIDED: with the state it is in.
    """
    if approval.state is S.EXPIRED:
        what = f"{approval.id} has expired and was not used"
        raise CohortError("APPROVAL_EXPIRED", what, hint="Let the agent ask again.", state=approval.state.value)
    if approval.state is not S.PENDING:
        raise CohortError(
            "APPROVAL_DECIDED",
            f"{approval.id} is {approval.state.value} already",
            hint=f"`cohort approval show {approval.id}` says by whom.",
            state=approval.state.value,
        )


def check_approver(approver: str, approval: Approval, voted: Collection[str]) -> None:
    """Refuse an approver who asked, who is an agent, or who has answered before. `approver`: proven by the surface.

    Raises:
        CohortError APPROVER_REFUSED: says why.
    """
    name = same_name(approver)
    if not 0 < len(approver) <= NAME_CHARS_MAX or not approver.isprintable() or not name:
        raise _refused("an approver needs a name of 1 to 63 printable characters", "Sign in with a key of your own.")
    if name.startswith(_AGENTS):
        raise _refused(f"{approver} is an agent", "Only people approve.")
    if name in {same_name(approval.asked_by), same_name(approval.action.agent)}:
        raise _refused(f"{approver} asked for it", "Let somebody else answer.")
    if name in {same_name(other) for other in voted}:
        raise _refused(f"{approver} has answered {approval.id} already", "Let somebody else answer too.")


def check_not_by_hand(approver: str, opened_by: Collection[str]) -> None:
    """Where two people are needed, refuse a yes to what the approver asks by hand. `opened_by`: who opened the session that asks.

    Raises:
        CohortError APPROVER_REFUSED
    """
    if same_name(approver) in {same_name(name) for name in opened_by}:
        raise _refused(f"{approver} asks for it by hand, and two people are needed", "Let somebody else answer.")


def same_name(name: str) -> str:
    """A name as compared with others: two spellings of one name are one person."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


@dataclass(frozen=True, slots=True)
class Asked:
    """How much people are being asked now. `session_hour`: questions of this session in the last hour, answered ones included."""

    session: int
    task: int
    in_total: int
    session_hour: int


def check_budget(asked: Asked, limits: ApprovalLimits) -> None:
    """Refuse one more question when people have enough of them.

    Raises:
        CohortError APPROVALS_FULL: names the budget that is used up.
    """
    for what, used, most in (
        ("questions of this session wait for an answer", asked.session, limits.pending_per_session),
        ("questions of this task wait for an answer", asked.task, limits.pending_per_task),
        ("questions wait for an answer", asked.in_total, limits.pending_in_total),
        (f"questions of this session in {HOUR_US // 60_000_000} minutes", asked.session_hour, limits.asked_per_session_hour),
    ):
        if used >= most:
            raise CohortError(
                "APPROVALS_FULL", f"{used} {what}, {most} are the limit", hint="Go on with what needs no approval, or wait.", limit=most
            )


def _refused(what: str, hint: str) -> CohortError:
    return CohortError("APPROVER_REFUSED", what, hint=hint)
