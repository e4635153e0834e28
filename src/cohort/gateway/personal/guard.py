"""What a release wants done with personal data in a call: nothing, taken out, or the call refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import orjson

from cohort.gateway.contract_personal import PASS, REFUSE
from cohort.gateway.dialects.face import Chat, Refused, Withheld
from cohort.gateway.personal.detector import LOOKS_MAX, Detector, TooMuch

DETECTORS_MAX = 128
TOO_MUCH = f"more than {LOOKS_MAX} places of the request look like personal data, more than this service looks at; send less at once"
Counted = Callable[[str, str, int], object]
"""way, kind, how many."""


@dataclass(frozen=True, slots=True, eq=False)
class PersonalGuard:
    """`way`: redact or refuse."""

    way: str
    detector: Detector

    def apply(self, chat: Chat, counted: Counted) -> Chat:
        """The call without personal data; the very same where there is none.

        Raises:
            Refused 400: there is some, and the release refuses it, or too much looks like it. The message names the kinds and repeats nothing.
        """
        turn = chat.turn
        if not self.detector.may_hold(chat.body) and (turn is None or not self.detector.may_hold(orjson.dumps(turn.messages))):
            return chat
        try:
            native, found = self.detector.redact_value(chat.native)
            fields, more = (native, {}) if chat.fields is chat.native else self.detector.redact_value(chat.fields)
            messages = self.detector.redact_value(turn.messages)[0] if turn is not None else []
        except TooMuch as error:
            raise Withheld(400, TOO_MUCH, "personal_data_unclear") from error
        kinds = {**more, **found}
        if not kinds:
            return chat
        for kind, count in kinds.items():
            counted(self.way, kind, count)
        if self.way == REFUSE:
            words = f"the request holds what this service does not take: {', '.join(sorted(kinds))}"
            raise Refused(400, words, "personal_data_refused")
        if turn is not None:  # what is kept of a conversation is what was asked, and goes upstream again with the next turn
            turn = replace(turn, messages=messages)
        return replace(chat, body=orjson.dumps(native), native=native, fields=fields, turn=turn)


def guard_of(way: str, kinds: tuple[str, ...]) -> PersonalGuard | None:
    """None where everything may pass."""
    return None if way == PASS else PersonalGuard(way, _detector(kinds))


@lru_cache(DETECTORS_MAX)
def _detector(kinds: tuple[str, ...]) -> Detector:
    return Detector(kinds)
