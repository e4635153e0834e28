"""Questions posted to a webhook, and its signed answers.

Nothing is queued: what has to be sent is derived from the pending approvals, so a restart forgets nothing. A question may arrive twice, always
with the same `webhook-id`. An answer counts for one approval and one digest, as approver `webhook:NAME`, once.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cohort.base.canonical import canonical_json
from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.base.ids import ApprovalId
from cohort.base.settings_kernel import WebhookSettings
from cohort.kernel.approvals.limits import LOOKED_MS_MAX, NAME_CHARS_MAX, NOTE_CHARS_MAX
from cohort.kernel.approvals.signatures import TOLERANCE_S, Secret, check, signed
from cohort.kernel.approvals.webhook_http import Address, Resolve, post, resolve
from cohort.kernel.face import ApprovalDesk, Sign
from cohort.kernel.model import Approval, ApprovalState

BACKOFF_S = (5, 15, 60, 180)
"""Pauses between the tries; after the last one the question is only on the other surfaces."""
LOOK_S = 2.0
PENDING_MAX = 500
REPLY_BYTES_MAX = 16_384
REPLIES_KEPT_MAX = 10_000
GONE = 410
REPLY_PATH = "/api/v1/approvals/reply"
"""Where control takes answers; which question it answers, the answer says itself."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Try:
    """`next_us`: when to try again; None: never."""

    tries: int
    next_us: int | None


class ApprovalWebhook:
    """One receiver. `secret`: the secret itself, already read from where the settings say. Safe to use from many threads."""

    def __init__(self, settings: WebhookSettings, secret: str, desk: ApprovalDesk, clock: Clock, ask: Resolve = resolve) -> None:
        self._address = Address.parse(settings.url, settings.allow_private)
        self._private = settings.allow_private
        self._approver = f"webhook:{settings.approver}"
        if len(self._approver) > NAME_CHARS_MAX:
            field = "kernel.approval_webhook.approver"
            raise CohortError("CONFIG_INVALID", f"{field} has more than 55 characters", field=field, hint="Shorten it.")
        self._secret = Secret.parse(secret)
        self._desk = desk
        self._clock = clock
        self._ask = ask
        self._tried: dict[ApprovalId, _Try] = {}
        self._replies = _Once(clock)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def notify(self, approval: Approval) -> None:
        """A listener of approvals: a new question is sent without waiting for the next look."""
        if approval.state is ApprovalState.PENDING:
            self._wake.set()

    def start(self) -> None:
        """Send in the background until `stop`."""
        self._thread = threading.Thread(target=self._run, name="approval webhook", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def step(self) -> int:
        """Send every pending question whose time it is; how many arrived."""
        pending = self._desk.list(ApprovalState.PENDING, PENDING_MAX)
        self._tried = {each.id: self._tried[each.id] for each in pending if each.id in self._tried}
        now_us = self._clock.now_us()
        due = [each for each in pending if _is_due(self._tried.get(each.id), now_us)]
        return sum(self._send(each) for each in due)

    def reply(self, headers: Mapping[str, str], body: bytes) -> Approval:
        """Take an answer. `body`: the bytes as received, which are what is signed.

        Raises:
            CohortError KEY_INVALID: not signed with the secret, not of now, or received before.
            CohortError DOCUMENT_INVALID: signed, and not an answer.
            And the errors of `ApprovalDesk.approve`.
        """
        if len(body) > REPLY_BYTES_MAX:
            raise _not_an_answer(f"it has {len(body)} bytes, {REPLY_BYTES_MAX} are the limit")
        message_id = check(self._secret, headers, body, self._clock.now_us() // 1_000_000)
        answer = _parse(body)
        self._replies.take(message_id)
        try:
            return self._decide(answer)
        except CohortError as error:
            if error.retry is Retry.SAFE:
                self._replies.give_back(message_id)  # nothing happened: the sender may repeat it under the same id
            raise

    def _decide(self, answer: _Answer) -> Approval:
        if self._desk.find(answer.approval).digest != answer.digest:
            raise CohortError(
                "APPROVER_REFUSED", f"the answer is for another action than {answer.approval}", hint="Repeat the digest of the question."
            )
        sign = Sign(self._approver, note=answer.note, looked_ms=answer.looked_ms)
        return self._desk.approve(answer.approval, sign) if answer.yes else self._desk.deny(answer.approval, sign)

    def _send(self, approval: Approval) -> bool:
        now_us = self._clock.now_us()
        body = canonical_json(message(approval, now_us))
        headers = {"content-type": "application/json", **signed(self._secret, f"msg_{approval.id}", now_us // 1_000_000, body)}
        try:
            status = post(self._address, headers, body, self._private, self._ask)
        except CohortError as error:
            _log.warning("approval %s was not posted: %s", approval.id, error)
            status = None
        arrived = status is not None and 200 <= status < 300
        self._tried[approval.id] = _after(self._tried.get(approval.id), arrived or status == GONE, now_us)
        if status is not None and not arrived:
            _log.warning("approval %s: the webhook answered %s", approval.id, status)
        return arrived

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                self.step()
            except CohortError as error:
                _log.warning("pending approvals could not be posted: %s", error)
            self._wake.wait(LOOK_S)


def message(approval: Approval, now_us: int) -> dict[str, Any]:
    """The question as posted. Everything in it was written by the kernel but `why`, which is the agent's own reason."""
    action = approval.action
    return {
        "type": "approval.asked",
        "timestamp": now_us // 1_000_000,
        "data": {
            "approval": approval.id,
            "digest": approval.digest,
            "operation": action.operation,
            "resource": action.resource,
            "agent": action.agent,
            "asked_by": approval.asked_by,
            "task": approval.task,
            "risk": approval.risk,
            "plain": approval.plain,
            "touches": list(approval.touches),
            "why": approval.why,
            "expires_us": approval.expires_us,
            "reply": REPLY_PATH,
        },
    }


@dataclass(frozen=True, slots=True)
class _Answer:
    approval: ApprovalId
    digest: str
    yes: bool
    note: str
    looked_ms: int | None


def _parse(body: bytes) -> _Answer:
    try:
        read = json.loads(body)
    except ValueError as error:
        raise _not_an_answer("it is not JSON") from error
    data = read.get("data") if isinstance(read, dict) and read.get("type") == "approval.answered" else None
    if not isinstance(data, dict):
        raise _not_an_answer("its `type` is not `approval.answered`")
    approval, digest, answer = (data.get(name) for name in ("approval", "digest", "answer"))
    note, looked_ms = data.get("note", ""), data.get("looked_ms")
    if not isinstance(approval, str) or not isinstance(digest, str) or answer not in ("approve", "deny"):
        raise _not_an_answer("it lacks `approval`, `digest`, or an `answer` of approve or deny")
    if not isinstance(note, str) or len(note) > NOTE_CHARS_MAX or not _is_time(looked_ms):
        raise _not_an_answer("its `note` or `looked_ms` is not what it should be")
    return _Answer(ApprovalId(approval), digest, answer == "approve", note, looked_ms)


def _is_time(looked_ms: Any) -> bool:
    return looked_ms is None or (isinstance(looked_ms, int) and not isinstance(looked_ms, bool) and 0 <= looked_ms <= LOOKED_MS_MAX)


def _is_due(tried: _Try | None, now_us: int) -> bool:
    return tried is None or (tried.next_us is not None and tried.next_us <= now_us)


def _after(tried: _Try | None, done: bool, now_us: int) -> _Try:
    tries = 1 if tried is None else tried.tries + 1
    if done or tries > len(BACKOFF_S):
        return _Try(tries, None)
    return _Try(tries, now_us + BACKOFF_S[tries - 1] * 1_000_000)


class _Once:
    """Ids of the messages taken lately. As long as a message would still be in time, its id is known."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._taken: OrderedDict[str, float] = OrderedDict()

    def take(self, message_id: str) -> None:
        """Errors: KEY_INVALID when it was taken before, or when too many came to tell."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            while self._taken and next(iter(self._taken.values())) <= now_s:
                self._taken.popitem(last=False)
            if message_id in self._taken or len(self._taken) >= REPLIES_KEPT_MAX:
                raise CohortError("KEY_INVALID", "the reply is refused: it was received before", hint="Use each webhook-id once.")
            self._taken[message_id] = now_s + 2 * TOLERANCE_S

    def give_back(self, message_id: str) -> None:
        with self._lock:
            self._taken.pop(message_id, None)


def _not_an_answer(why: str) -> CohortError:
    return CohortError("DOCUMENT_INVALID", f"this is not an answer to an approval: {why}", hint="See the reference on approvals.")
