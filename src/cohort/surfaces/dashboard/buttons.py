"""What a person may do to a rollout, in words, and the command that does the same."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from cohort.delivery.model import RolloutView, State


@dataclass(frozen=True, slots=True)
class Button:
    """One verb as a person meets it. `asks`: a page in between says what will happen and takes a reason."""

    verb: str
    label: str
    effect: str
    done: str
    tone: str
    asks: bool = True
    reason_needed: bool = False


BUTTONS = {
    "pause": Button(
        "pause", "Pause", "Shares stay as they are until it is resumed; evidence goes on being taken.", "Paused.", "plain", asks=False
    ),
    "resume": Button("resume", "Resume", "The rollout goes on from its present stage.", "Resumed.", "accent", asks=False),
    "approve": Button("approve", "Approve", "The stage may be left once everything else it waits for is there.", "Approved.", "accent"),
    "promote": Button(
        "promote",
        "Promote",
        "Goes one stage on without waiting for its certificate. An alarm cannot be waived.",
        "Promoted by one stage.",
        "plain",
        reason_needed=True,
    ),
    "rollback": Button("rollback", "Roll back", "Everybody gets the stable release again, at once.", "Rolled back.", "harm"),
    "abort": Button("abort", "Abort", "Ends the rollout without a verdict; everybody gets the stable release.", "Aborted.", "harm"),
}
SERVICE_ROLLBACK = Button(
    "rollback",
    "Roll back the service",
    "Ends the active rollout; without one, goes back to the previous stable release. The gateway is asked before this says done.",
    "Rolled back and verified.",
    "harm",
    reason_needed=True,
)


def buttons_for(view: RolloutView) -> list[Button]:
    """The verbs worth offering in this state; what is refused anyway is not offered."""
    if view.state.ended:
        return []
    names = ["resume" if view.state is State.PAUSED else "pause", "promote", "rollback", "abort"]
    if view.state is State.AWAITING_APPROVAL:
        names.insert(0, "approve")
    return [BUTTONS[name] for name in names]


def command_for(verb: str, target: str, reason: bool = False) -> str:
    words = ["cohort", "rollout", verb, target]
    return shlex.join(words) + (' --reason "…"' if reason else "")
