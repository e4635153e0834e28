"""A question to a person, in text. The kernel's words and the agent's own are told apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from cohort.surfaces.cli.render import moment, risk_word, seconds


def show_question(say: Callable[[str], None], approval: dict[str, Any]) -> None:
    """What will happen first, then what it touches, and only then what the agent says about it."""
    action, left_s = approval["action"], approval["expires_us"] / 1e6 - time.time()
    say(f"{approval['id']}: {approval['plain']}")
    for touched in approval["touches"]:
        say(f"  touches     {touched}")
    say(f"  risk        {risk_word(approval['risk'])} ({approval['risk']:.2f})")
    say(f"  operation   {action['operation']}, digest {approval['digest'][:16]}")
    say(f"  asked by    {approval['asked_by']} ({action['agent']}){' for ' + approval['task'] if approval['task'] else ''}")
    say(f'  it says     "{printable(approval["why"])}"' if approval["why"] else "  it says     nothing")
    if approval["state"] == "pending":
        needed = f", {approval['approvers_needed']} approvers" if approval["approvers_needed"] > 1 else ""
        say(f"  waits       since {moment(approval['created_us'])}, {_left(left_s)}{needed}")
    else:
        say(f"  answered    {answer_line(approval)}{_use(approval, left_s)}")


def answer_line(approval: dict[str, Any]) -> str:
    who = f" by {', '.join(approval['approvers'])}" if approval["approvers"] else ""
    reach = f", {approval['grant']}" if approval["grant"] else ""
    rule = f" (rule {approval['rule']})" if approval["rule"] else ""
    note = f": {printable(approval['note'])}" if approval["note"] else ""
    missing = approval["approvers_needed"] - len(approval["approvers"])
    more = f", {missing} more to come" if approval["state"] == "pending" and approval["approvers"] and missing > 0 else ""
    word = "approved" if approval["state"] == "consumed" else approval["state"]
    return f"{word}{who}{reach}{rule}{more}{note}"


def _use(approval: dict[str, Any], left_s: float) -> str:
    """What became of a yes; nothing for another answer."""
    if approval["state"] == "consumed":
        return "; used"
    if approval["state"] == "approved" and approval["rule"] is None:
        return f"; not used yet, void in {seconds(left_s)}"
    return ""


def printable(text: str) -> str:
    """Text of others on one line, without anything that moves the cursor or hides."""
    return "".join(sign if sign.isprintable() else f"<U+{ord(sign):04X}>" for sign in text)


def _left(left_s: float) -> str:
    return f"denied by itself in {seconds(left_s)}" if left_s > 0 else "its time is over"
