"""What a person may do to an agent or its workspace, in words, and the command that does the same."""

from __future__ import annotations

from cohort.kernel.model import Agent, AgentState
from cohort.surfaces.dashboard.buttons import Button

AGENT_BUTTONS = {
    "suspend": Button(
        "suspend", "Suspend", "Nothing it asks for is done from its next action on, until somebody resumes it.", "Suspended.", "plain"
    ),
    "resume": Button("resume", "Resume", "It may act again, within its scopes and limits.", "Resumed.", "accent"),
    "trust": Button(
        "trust",
        "Trust its data",
        "Its workspace and memory count as free of what strangers wrote. Look at the workspace's differences first.",
        "Trusted.",
        "plain",
        reason_needed=True,
    ),
    "revoke": Button(
        "revoke",
        "Revoke for ever",
        "Its keys, its sessions and every delegation below it end, from the next action on. This cannot be undone.",
        "Revoked.",
        "harm",
        reason_needed=True,
    ),
}
WORKSPACE_BUTTONS = {
    "commit": Button(
        "commit", "Commit", "The files as they are become the base that differences are counted from.", "Committed.", "accent"
    ),
    "discard": Button(
        "discard",
        "Discard",
        "The files go back to the last commit. What is lost by it is kept in a snapshot.",
        "Discarded; a snapshot was kept.",
        "harm",
    ),
    "snapshot": Button("snapshot", "Snapshot", "The files as they are are kept, to go back to.", "A snapshot was kept.", "plain"),
}


def agent_buttons(agent: Agent) -> list[Button]:
    """The verbs worth offering in this state."""
    if agent.state is AgentState.REVOKED:
        return []
    suspended = agent.state is AgentState.SUSPENDED
    trust = [AGENT_BUTTONS["trust"]] if suspended and agent.untrusted_us is not None else []
    return [AGENT_BUTTONS["resume" if suspended else "suspend"], *trust, AGENT_BUTTONS["revoke"]]
