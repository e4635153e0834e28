"""What a call may spend: a bound reserved before it is made, what it cost settled after, on every budget that it counts in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cohort.base.clock import Clock
from cohort.gateway.contract_spend import EACH, Scope
from cohort.gateway.dialects.face import Chat, Refused, Withheld
from cohort.gateway.log import Log
from cohort.gateway.spend import estimates
from cohort.gateway.spend.accounts import LabelsFull, LedgerFull, Limit
from cohort.gateway.spend.book import BookBusy, BookUnavailable
from cohort.gateway.spend.callers import Caller
from cohort.gateway.spend.ledger import Exceeded, Hold, Ledger
from cohort.gateway.spend.pricing import cost_usd_micro
from cohort.gateway.spend.rules import (
    DAY_US,
    UNBILLED,
    Rules,
    account,
    bound,
    broken_off,
    charged,
    exceeded,
    given_up,
    terms_of,
)

if TYPE_CHECKING:
    from cohort.gateway.records import Ongoing

LIFE_MARGIN_S = 60.0
"""A reservation is given back so long after the call's own time limit."""
OPEN_AGAIN_S = 5.0
_SHORT_OF_IT = (BookBusy, BookUnavailable, LedgerFull)


@dataclass(slots=True)
class Reserved:
    """What a call holds until it ends. `tokens`: those taken from the key's rate; `events`: pieces of a streamed answer so far."""

    hold: Hold | None
    tokens: int
    tokens_out_max: int
    body_bytes: int
    allowances: Allowances
    events: int = 0

    def settle(self, ongoing: Ongoing) -> None:
        self.allowances.settle(self, ongoing)


@dataclass(slots=True)
class Counts:
    """Since this worker began; amounts in millionths of a dollar."""

    settled_usd_micro: int = 0
    estimated: int = 0


class Allowances:
    """Budgets and rates of this worker's calls. The ledger is opened when the first limit comes with a routing table."""

    def __init__(self, rules: Callable[[], Rules | None], open_ledger: Callable[[], Ledger], clock: Clock, log: Log) -> None:
        self._rules = rules
        self._open = open_ledger
        self._clock = clock
        self._log = log
        self._ledger: Ledger | None = None
        self._again_s = -math.inf
        self.counts = Counts()
        self.problem: str | None = None

    @property
    def on(self) -> bool:
        """Something is limited."""
        return self._rules() is not None

    def pass_request(self, caller: Caller) -> None:
        """Count one request against the key's rate; raises Refused 429, 503."""
        per_minute = caller.key.requests_per_minute
        if per_minute is not None:
            self._take(f"rpm\0{caller.key.id}", 1, per_minute, "requests_per_minute_exceeded", f"{per_minute} requests per minute")

    def reserve(self, ongoing: Ongoing, chat: Chat, headers: Mapping[bytes, bytes]) -> None:
        """Hold what this call may cost on every budget that it counts in, and its tokens on the key's rate.

        Raises:
            Refused: 402 a budget does not have it, or the price is not known; 429 the rate, or too many labels; 400 a label; 503 the ledger cannot be asked.
        """
        rules = self._rules()
        if rules is None:
            return
        terms, caller = terms_of(rules, ongoing, headers, self._clock.now_us()), ongoing.caller
        per_minute = caller.key.tokens_per_minute if caller is not None else None
        if not terms.limits and per_minute is None:
            return
        began_s = self._clock.monotonic_s()
        tokens_in, tokens_out = estimates.prompt_tokens_max(chat), estimates.output_tokens_max(chat, ongoing.target.parameters)
        reserved = Reserved(None, 0, tokens_out, len(chat.body), self)
        if terms.limits:
            reserved.hold = self._hold(terms.limits, bound(terms, chat, tokens_in, tokens_out), ongoing.target.timeout_s)
        if per_minute is not None and caller is not None:
            self._hold_tokens(reserved, caller.key.id, tokens_in + tokens_out, per_minute)
        if reserved.hold is not None:
            ongoing.told += f',"held_usd_micro":{reserved.hold.amount}{terms.told}'
        ongoing.reserved = reserved
        ongoing.step("budget", began_s, self._clock.monotonic_s())

    def settle(self, reserved: Reserved, ongoing: Ongoing) -> None:
        """The call is over. Its cost where nobody said its usage is estimated, so that what is recorded is what was settled.

        The ledger has it with the next call that asks it, and at the latest after `settle_waiting`.
        """
        if ongoing.stream:
            self._charge_streamed(reserved, ongoing)
        hold, ledger = reserved.hold, self._ledger
        if hold is not None:
            if ongoing.cost_usd_micro is None:
                ongoing.cost_usd_micro = charged(ongoing, reserved.body_bytes, reserved.events, reserved.tokens_out_max)
                ongoing.estimated = True
                self.counts.estimated += 1
            if ongoing.beside:
                ongoing.cost_usd_micro += given_up(ongoing, reserved.body_bytes)
                ongoing.estimated = True
            if ledger is not None:
                ledger.settle_later(hold, ongoing.cost_usd_micro)
                self.counts.settled_usd_micro += ongoing.cost_usd_micro
        if reserved.tokens and ledger is not None:
            self._correct_tokens(ledger, reserved, ongoing)

    def settle_waiting(self) -> None:
        """Have the ledger know of every call that is over, before its record is on disk and its client has the answer; later if its lock is not to be had."""
        if self._ledger is not None:
            self._ledger.settle_waiting()

    def report(self) -> list[dict[str, object]]:
        """Every budget that has a name, and every key's: limit, what was spent (of a day: today) and what is held, in millionths of a dollar.

        Raises BookBusy.
        """
        rules, ledger = self._rules(), self._ledger
        if rules is None or ledger is None:
            return []
        day = self._day()
        named = [(scope.value, name, most) for scope, entries in rules.budgets.items() for name, most in entries.items() if name != EACH]
        rows = [(scope, name, most, account(scope, name, 0 if scope == Scope.RUN else day)) for scope, name, most in named]
        rows += [("key", key, most, account("key", key, day)) for key, most in rules.keys.items()]
        rows += [("release", digest, most, account("release", digest, day)) for digest, most in rules.releases.items()]
        found: list[dict[str, object]] = []
        for scope, name, most, place in rows:
            spent, held = ledger.balance(place)
            found.append({"scope": scope, "name": name, "limit": most, "spent": spent, "held": held})
        return found

    def sweep(self) -> None:
        """Give back what expired and what workers that died held; open the ledger before the first call needs it. Call now and then."""
        try:
            if self.on and self._ledger is None:
                self._opened()
            if self._ledger is not None:
                self._ledger.sweep()
        except (*_SHORT_OF_IT, Refused) as error:
            self._log.seldom("ledger_not_swept", reason=str(error))

    def sync(self) -> None:
        """Have the disk keep the ledger; from another thread. Raises OSError."""
        if self._ledger is not None:
            self._ledger.sync()

    @property
    def holds(self) -> int:
        """Calls of this worker that hold a reservation."""
        return self._ledger.holds() if self._ledger is not None else 0

    @property
    def orphaned_usd_micro(self) -> int:
        """Given back for workers that died."""
        return self._ledger.orphaned if self._ledger is not None else 0

    def close(self) -> None:
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.close()

    # --- parts -----------------------------------------------------------------------------------------------------------------

    def _hold(self, limits: Sequence[Limit], amount: int, timeout_s: float) -> Hold:
        ledger = self._opened()
        try:
            return ledger.reserve(limits, amount, timeout_s + LIFE_MARGIN_S)
        except Exceeded as error:
            raise exceeded(error, amount, self._clock.now_us()) from error
        except LabelsFull as error:
            raise Withheld(
                429, f"there is no room for another run or agent: {error}", "too_many_labels", kind="rate_limit_error"
            ) from error
        except _SHORT_OF_IT as error:
            raise self._unavailable(str(error)) from error

    def _take(self, name: str, units: int, per_minute: int, code: str, told: str) -> None:
        try:
            wait_s = self._opened().take(name, units, per_minute)
        except _SHORT_OF_IT as error:
            raise self._unavailable(str(error)) from error
        if wait_s == math.inf:
            words = f"this request asks for {units}, and the key may have {told}"
            raise Withheld(429, words, code, kind="rate_limit_error")
        if wait_s:
            after_s = math.ceil(wait_s)
            words = f"the key may have {told}; try again in {after_s} s"
            raise Withheld(429, words, code, kind="rate_limit_error", headers=b"retry-after: %d\r\n" % after_s)

    def _hold_tokens(self, reserved: Reserved, key_id: str, tokens: int, per_minute: int) -> None:
        try:
            self._take(f"tpm\0{key_id}", tokens, per_minute, "tokens_per_minute_exceeded", f"{per_minute} tokens per minute")
        except Refused:
            self._cancel(reserved)
            raise
        reserved.tokens = tokens

    def _charge_streamed(self, reserved: Reserved, ongoing: Ongoing) -> None:
        least = broken_off(ongoing, reserved.events, reserved.tokens_out_max)
        if least is not None:
            ongoing.usage, ongoing.cost_usd_micro = least, cost_usd_micro(ongoing.target.price, least)
            ongoing.estimated = True

    def _correct_tokens(self, ledger: Ledger, reserved: Reserved, ongoing: Ongoing) -> None:
        caller = ongoing.caller
        if caller is None or caller.key.tokens_per_minute is None:
            return
        tokens_in, tokens_out = ongoing.usage.tokens_in, ongoing.usage.tokens_out
        used = reserved.tokens if tokens_in is None and ongoing.result not in UNBILLED else (tokens_in or 0) + (tokens_out or 0)
        if used < reserved.tokens:
            ledger.give(f"tpm\0{caller.key.id}", reserved.tokens - used, caller.key.tokens_per_minute)

    def _cancel(self, reserved: Reserved) -> None:
        if self._ledger is not None and reserved.hold is not None:
            self._ledger.settle(reserved.hold, 0)

    def _opened(self) -> Ledger:
        if self._ledger is None:
            now_s = self._clock.monotonic_s()
            if now_s < self._again_s:
                raise self._unavailable(self.problem or "the ledger is not open")
            try:
                self._ledger, self.problem = self._open(), None
            except _SHORT_OF_IT as error:
                self._again_s, self.problem = now_s + OPEN_AGAIN_S, f"the ledger of budgets cannot be opened: {error}"
                self._log.seldom("ledger_not_opened", reason=str(error))
                raise self._unavailable(self.problem) from error
        return self._ledger

    def _unavailable(self, why: str) -> Refused:
        words = f"a limit applies and cannot be looked at: {why}"
        return Withheld(503, words, "budget_unavailable", kind="server_error", headers=b"retry-after: 1\r\n")

    def _day(self) -> int:
        return self._clock.now_us() // DAY_US
