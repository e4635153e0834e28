"""What Cedar has answered to questions about one policy set: the same question has the same answer for as long as the set is in force."""

from __future__ import annotations

import threading
from typing import Any

from cohort.kernel.actions.rules import Verdict

Question = tuple[Any, ...]
"""Everything an answer can turn on, see `policy_reads`."""
ANSWERS_MAX = 4096
QUESTION_CHARS_MAX = 2048
"""A longer question (it has a long command line) is not kept; it will hardly come again, and 4,096 of them would be a lot of memory."""


class Answers:
    """Safe to use from many threads. The oldest answer is forgotten for a new one when there are `ANSWERS_MAX`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Question, Verdict] = {}

    def __len__(self) -> int:
        return len(self._known)

    def clear(self) -> None:
        with self._lock:
            self._known.clear()

    def get(self, question: Question) -> Verdict | None:
        return self._known.get(question)

    def put(self, question: Question, answer: Verdict) -> None:
        if len(repr(question)) > QUESTION_CHARS_MAX:
            return
        with self._lock:
            while len(self._known) >= ANSWERS_MAX:
                del self._known[next(iter(self._known))]
            self._known[question] = answer
