"""Asks a service on the gateway's own behalf: like a client's call, recorded like one, for nobody's budget, of a unit that comes once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from cohort.base.ids import Entropy
from cohort.gateway.answering import Answering
from cohort.gateway.contract import Result
from cohort.gateway.dialects.face import Refused
from cohort.gateway.dialects.openai_same import parse_chat
from cohort.gateway.dialects.operations import CHAT
from cohort.gateway.http_messages import Request
from cohort.gateway.log import Log
from cohort.gateway.metrics import Metrics
from cohort.gateway.records import Recorder
from cohort.gateway.strands import Strand
from cohort.gateway.table import Table


class Consulting:
    """Asks without waiting for a free connection: clients come first."""

    def __init__(self, table: Table, recorder: Recorder, answering: Answering, metrics: Metrics, entropy: Entropy, log: Log) -> None:
        self._table = table
        self._recorder = recorder
        self._answering = answering
        self._metrics = metrics
        self._entropy = entropy
        self._log = log

    async def ask(self, name: str, fields: Mapping[str, Any]) -> bytes | None:
        """The chat completion, to be awaited in a task; None when there is no such service, or it does not answer well.

        The record of the call says why.
        """
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answers: list[bytes | None] = []

        async def asked() -> None:
            answers.append(await self._asked(name, fields))

        def over(_strand: Strand, error: BaseException | None) -> None:
            if not ended.done():
                ended.set_result(None) if error is None else ended.set_exception(error)

        strand = Strand(asked(), over)  # calls of upstreams are timed by their strand
        strand.step()
        try:
            await ended
        except asyncio.CancelledError:
            strand.cancel()
            raise
        return answers[0]

    async def _asked(self, name: str, fields: Mapping[str, Any]) -> bytes | None:
        snapshot = self._table.snapshot
        service = snapshot.services.get(name) if snapshot is not None else None
        if service is None:
            self._log.seldom("consulted_service_missing", service=name)
            return None
        body = orjson.dumps({**fields, "model": name})
        chat = parse_chat(CHAT, body)
        ongoing = self._recorder.assign(service, self._entropy(16).hex(), stream=False)
        chat.unit, chat.at_us = ongoing.unit, ongoing.at_us
        try:
            guard = ongoing.form.target.guard
            if guard is not None:
                chat = guard.apply(chat, self._metrics.personal_found)
            return await self._answering.rehearse(ongoing, chat, Request(b"POST", b"/v1/chat/completions", {}, body))
        except Refused:
            ongoing.result = Result.UPSTREAM_ERROR
            return None
        finally:
            self._recorder.end(ongoing)
