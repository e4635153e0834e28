"""The client's answer from a cache, and the refusal of a client that wanted nothing else."""

from __future__ import annotations

from cohort.gateway.cache.caches import Hit, Lookup, Tier
from cohort.gateway.cache.replay import events
from cohort.gateway.cache.tape import CHAT_NAME, Tape
from cohort.gateway.contract import Result
from cohort.gateway.http_messages import Reply
from cohort.gateway.records import Recorder

NOT_CACHED_STATUS = 504
"""RFC 9111, section 5.2.1.7: what `only-if-cached` is answered with when nothing is there."""


def deliver(lookup: Lookup, hit: Hit, recorder: Recorder, reply: Reply) -> None:
    """Record the call as answered by a cache, then answer it: whole, or as a stream when it asked for one."""
    ongoing = lookup.ongoing
    said = _said(lookup, hit)
    ongoing.result, ongoing.status = Result.OK, 200
    ongoing.cache, ongoing.saved_usd_micro = hit.tier.value, hit.answer.saved_usd_micro
    if ongoing.sample is not None:
        ongoing.tape = Tape(len(hit.answer.body), CHAT_NAME)
        ongoing.tape.whole(hit.answer.body, hit.answer.body, "openai")
    recorder.end(ongoing)
    word = b"semantic" if hit.tier is Tier.SEMANTIC else b"exact"
    headers = b"%sx-cohort-unit: %s\r\nx-cohort-cache: %s\r\nage: %d\r\nx-cohort-cost-usd: 0.000000\r\n%s" % (
        ongoing.target.reply_headers,
        ongoing.unit.encode(),
        word,
        int(hit.age_s),
        b"x-cohort-saved-usd: %.6f\r\n" % (hit.answer.saved_usd_micro / 1e6) if hit.answer.saved_usd_micro else b"",
    )
    if not ongoing.stream:
        reply.send(200, said, headers)
        return
    reply.start(200, b"content-type: text/event-stream; charset=utf-8\r\n" + headers)
    reply.write(said)
    reply.finish()


def _said(lookup: Lookup, hit: Hit) -> bytes:
    chat, voice = lookup.chat, lookup.chat.operation.voice
    if not lookup.ongoing.stream:
        return voice.whole(chat, hit.answer.body)
    flow = voice.flow(chat)
    return flow.feed(events(hit.answer.body, lookup.usage)) + flow.end()


def refuse(lookup: Lookup, recorder: Recorder, reply: Reply) -> None:
    """The client wants a kept answer or none, and none is kept. Not a failure of the release."""
    ongoing = lookup.ongoing
    ongoing.result, ongoing.status = Result.OK, NOT_CACHED_STATUS
    ongoing.cache = "none"
    recorder.end(ongoing)
    words = "no answer to this request is kept, and `cache-control: only-if-cached` asks for nothing else"
    headers = ongoing.target.reply_headers + b"x-cohort-unit: %s\r\n%s" % (ongoing.unit.encode(), ongoing.cache_line)
    reply.send(NOT_CACHED_STATUS, lookup.chat.operation.voice.error(NOT_CACHED_STATUS, words, "not_cached"), headers)
