"""How long, how often and how many: the limits of asking people."""

from __future__ import annotations

from dataclasses import dataclass

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

APPROVERS_MAX = 2
USES_MAX = 10_000
ARGV_PREFIX_MAX = 20
NAME_CHARS_MAX = 63
NOTE_CHARS_MAX = 1000
WHY_CHARS_MAX = 1000
LOOKED_MS_MAX = 24 * 3_600_000
LIST_MAX = 500
WAIT_S_MAX = 300.0
LOOK_S = 0.5
"""How long a waiting caller may be behind an answer that another process took."""
SWEPT_AT_ONCE = 100
CHANGES_AT_ONCE = 4
"""Changes under way in one process: each holds a connection while its record is written."""


@dataclass(frozen=True, slots=True)
class ApprovalLimits:
    """What an installation may set.

    `pending_us`: how long a question waits for an answer. `unused_us`: how long an answer waits for its action. `refused_us`: for how long a
    person's no is the answer to the same question. The budgets hold questions back from people who have enough of them.
    """

    approvers_needed: int = 1
    pending_us: int = 15 * MINUTE_US
    unused_us: int = 10 * MINUTE_US
    refused_us: int = 10 * MINUTE_US
    rule_us: int = 8 * HOUR_US
    rule_us_max: int = DAY_US
    standing_us: int = 30 * DAY_US
    standing_us_max: int = 90 * DAY_US
    pending_per_session: int = 10
    pending_per_task: int = 20
    pending_in_total: int = 500
    asked_per_session_hour: int = 60
    rules_per_agent: int = 100
