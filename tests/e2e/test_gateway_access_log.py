"""The access log of a real gateway: a line for every call and refusal, and nothing in it that a client wrote."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from cohort.base.clock import ManualClock
from cohort.gateway.compiled import compile_table
from cohort.gateway.contract import Result, decode_table
from cohort.gateway.contract_spend import ClientKey
from cohort.gateway.dialects.face import Usage
from cohort.gateway.log import Log
from cohort.gateway.metrics import Metrics
from cohort.gateway.records import Recorder
from cohort.gateway.settings import Limits
from cohort.gateway.spend.callers import compile_keys
from cohort.gateway.spool import Spool
from cohort.gateway.telemetry.access import AccessLog
from support_gateway import GatewayProcess, release, table, until
from support_upstream import Upstream

EVIL = 'x\n{"at_us":1,"status":200}\r\n\x1b[31m'


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def test_every_call_and_refusal_is_a_line_without_content_or_keys(tmp_path: Path) -> None:
    upstream = Upstream()
    process = GatewayProcess(tmp_path, access_log=True)
    try:
        priced = {"price": {"input_usd_per_mtok": 1000, "output_usd_per_mtok": 1000}}
        key = {"id": "cgk_1", "name": "shop", "sha256": hashlib.sha256(b"cgk_secret").hexdigest()}
        process.push({**table(1, [release("well", upstream.base_url, route=priced)]), "keys": [key]})
        bearer = {"Authorization": "Bearer cgk_secret"}
        asked = {"messages": [{"role": "user", "content": "My number is 4711" + EVIL}], "user": EVIL}
        assert process.chat("well", headers=bearer, **asked)[0] == 200
        assert process.chat(EVIL, headers=bearer)[0] == 404
        assert process.chat("well", headers={"Authorization": "Bearer cgk_wrong"})[0] == 401
        path = process.data_dir / "access.ndjson"
        found = until(lambda: written if len(written := lines(path)) == 3 else None, "three lines")
        call, unknown, wrong = found
        assert (call["key"], call["service"], call["route"], call["result"]) == ("cgk_1", "well", "main", "ok")
        assert (call["tokens_in"], call["cost_usd_micro"], call["status"]) == (11, 18_000, 200)
        assert [entry["refused"] for entry in (unknown, wrong)] == ["model_not_found", "invalid_api_key"]
        text = path.read_text()
        assert not any(secret in text for secret in ("4711", "31m", "cgk_secret", "cgk_wrong"))
        assert path.stat().st_mode & 0o077 == 0
    finally:
        process.close()
        upstream.close()


def test_a_line_says_of_a_call_what_its_fields_are_whatever_its_names_are(tmp_path: Path, clock: ManualClock) -> None:
    odd = 'a "b" \\ \u00e9\u2028'
    made = table(1, [release("well", "http://127.0.0.1:1/v1", version="v 1.0")], {odd: "rel_well"})
    service = compile_table(decode_table(json.dumps(made).encode())).services[odd]
    log = AccessLog(tmp_path / "access.ndjson", odd, clock)
    recorder = Recorder("gw", 1, Spool(tmp_path, "gw", 1, Limits(), clock, Log("gw", clock)), Metrics(), clock, 2, lambda _: None)
    recorder.access = log
    calls = [recorder.assign(service, "ab" * 16, stream) for stream in (False, True)]
    calls[0].caller = next(iter(compile_keys([ClientKey(odd, "shop", "ab" * 32)]).values()))
    calls[0].result, calls[0].status, calls[0].usage, calls[0].attempts = Result.OK, 200, Usage(3, 0), 2
    calls[1].cache, calls[1].degraded, calls[1].estimated = "l1", True, True
    for call in calls:
        recorder.end(call)
    log.flush()
    names = {"gateway": odd, "service": odd, "release": "v 1.0", "route": "main", "arm": "stable", "unit": "ab" * 16}
    first = {"key": odd, "result": "ok", "status": 200, "stream": False, "cache": None, "attempts": 2, "degraded": False, "tokens_in": 3}
    first |= {"tokens_out": 0, "cost_usd_micro": None, "estimated": False, "first_us": 0, "total_us": 0}
    second = {"key": None, "result": "lost", "status": 0, "stream": True, "cache": "l1", "attempts": 0, "degraded": True}
    second |= {"tokens_in": None, "tokens_out": None, "cost_usd_micro": 0, "estimated": True, "first_us": None, "total_us": 0}
    wanted = [{"at_us": call.at_us, "seq": call.seq, **names, **fields} for call, fields in zip(calls, (first, second), strict=True)]
    assert lines(tmp_path / "access.ndjson") == wanted


def test_the_log_is_off_unless_asked_for(tmp_path: Path) -> None:
    process = GatewayProcess(tmp_path)
    try:
        process.chat("nothing")
        assert process.terminate() == 0
        assert not (process.data_dir / "access.ndjson").exists()
    finally:
        process.close()


def test_files_are_rolled_and_the_oldest_go(tmp_path: Path, clock: ManualClock) -> None:
    log = AccessLog(tmp_path / "access.ndjson", "gw", clock, file_bytes_max=200)
    for _ in range(20):
        log.refused(404, "model_not_found", "chat completions")
        log.refused(404, "model_not_found", "chat completions")
        log.flush()
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["access.ndjson.1", "access.ndjson.2", "access.ndjson.3", "access.ndjson.4"]
    assert log.lost == 0


def test_lines_that_cannot_be_written_are_counted(tmp_path: Path, clock: ManualClock) -> None:
    log = AccessLog(tmp_path / "nowhere" / "access.ndjson", "gw", clock, lines_waiting_max=1)
    log.refused(404, "model_not_found", "chat completions")
    with pytest.raises(FileNotFoundError):
        log.flush()
    for _ in range(3):
        log.refused(404, "model_not_found", "chat completions")
    assert log.lost == 3
