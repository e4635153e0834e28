"""Settings, keys, records, metrics, usage and the modules of the process."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.gateway import openai
from cohort.gateway.compiled import compile_table
from cohort.gateway.contract import Arm, Call, Cursor, Result, decode_batch, decode_table, encode
from cohort.gateway.contract_price import Price
from cohort.gateway.contract_reliability import DEFAULT
from cohort.gateway.dialects.face import Usage
from cohort.gateway.keys import KeyMissing, Keys
from cohort.gateway.log import Log
from cohort.gateway.metrics import Metrics
from cohort.gateway.records import Recorder
from cohort.gateway.reliability.breakers import Breakers
from cohort.gateway.settings import Limits, load_settings, read_unit_key
from cohort.gateway.spend.pricing import cost_usd_micro
from cohort.gateway.spool import Spool
from support_gateway import SRC, release, split, table, write_config

WHOLE_LIMITS = [limit.name for limit in dataclasses.fields(Limits) if isinstance(limit.default, int)]
FORBIDDEN = {
    "sqlalchemy",
    "alembic",
    "psycopg",
    "pydantic",
    "fastapi",
    "starlette",
    "jinja2",
    "httpx2",
    "httpx",
    "rich",
    "yaml",
    "click",
    "prometheus_client",
}


def test_the_process_imports_no_database_no_framework_and_no_agent_library() -> None:
    code = "import cohort.gateway.__main__, sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(SRC)}, capture_output=True, text=True, check=True)
    modules = done.stdout.split()
    assert not {m for m in modules if m.split(".")[0] in FORBIDDEN}
    own = {m for m in modules if m.startswith("cohort.")}
    assert {m for m in own if not m.startswith(("cohort.gateway", "cohort.base"))} == set()


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"gateway_id": ""}, "CONFIG_INVALID", "gateway_id"),
        ({"port": "80"}, "CONFIG_INVALID", "port"),
        ({"port": 70000}, "CONFIG_INVALID", "port"),
        ({"prot": 1}, "CONFIG_INVALID", "prot"),
        ({"limits": {"body_bytes": 1}}, "CONFIG_INVALID", "limits.body_bytes"),
        ({"limits": {"body_bytes_max": 0}}, "CONFIG_INVALID", "limits.body_bytes_max"),
        ({"limits": []}, "CONFIG_INVALID", "limits"),
        *(({"limits": {name: 1.5}}, "CONFIG_INVALID", f"limits.{name}") for name in WHOLE_LIMITS),
        ({"limits": {"body_bytes_max": True}}, "CONFIG_INVALID", "limits.body_bytes_max"),
        ({"limits": {"body_bytes_max": 1e300}}, "CONFIG_INVALID", "limits.body_bytes_max"),
        ({"expose": "false"}, "CONFIG_INVALID", "expose"),
        ({"access_log": 1}, "CONFIG_INVALID", "access_log"),
        ({"host": "0.0.0.0"}, "BIND_REFUSED", "host"),
    ],
)
def test_a_wrong_setting_is_named_with_its_fix(tmp_path: Path, change: dict[str, object], code: str, field: str) -> None:
    with pytest.raises(CohortError) as caught:
        load_settings(write_config(tmp_path, **change))
    assert (caught.value.code, caught.value.field) == (code, field)
    assert caught.value.hint


def test_a_misspelt_limit_is_told_the_right_one(tmp_path: Path) -> None:
    for name, hint in (("body_bytes_mx", "Did you mean `body_bytes_max`?"), ("zzz", "Use one of: answer_bytes_max, body_bytes_max, ")):
        with pytest.raises(CohortError) as caught:
            load_settings(write_config(tmp_path, limits={name: 1}))
        assert (caught.value.hint or "").startswith(hint)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    settings = load_settings(write_config(tmp_path, limits={"body_bytes_max": 10}))
    assert settings.limits.body_bytes_max == 10
    assert len(read_unit_key(settings.unit_key_file)) == 32
    settings.unit_key_file.chmod(0o644)
    with pytest.raises(CohortError, match="can be read by other users"):
        read_unit_key(settings.unit_key_file)
    settings.unit_key_file.chmod(0o600)
    settings.unit_key_file.write_text("z" * 64)
    with pytest.raises(CohortError, match="not hexadecimal"):
        read_unit_key(settings.unit_key_file)


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="No such file"):
        load_settings(tmp_path / "none.json")


def test_keys_come_from_the_environment_or_a_file_and_are_looked_up_again(tmp_path: Path) -> None:
    clock = ManualClock()
    path = tmp_path / "key"
    path.write_text("one\n")
    keys = Keys({"NAME": " two "}, clock, fresh_s=30)
    assert keys.authorization(None) == b""
    assert keys.authorization("env:NAME") == b"authorization: Bearer two\r\n"
    assert keys.authorization(f"file:{path}") == b"authorization: Bearer one\r\n"
    path.write_text("three")
    assert keys.authorization(f"file:{path}").endswith(b"one\r\n")
    clock.advance(31)
    assert keys.authorization(f"file:{path}").endswith(b"three\r\n")


@pytest.mark.parametrize("reference", ["env:GONE", "env:SPLIT", "file:/nowhere/key", "plain-key"])
def test_a_reference_without_a_usable_key_says_so_without_showing_one(reference: str) -> None:
    with pytest.raises(KeyMissing) as caught:
        Keys({"SPLIT": "a\r\nx-evil: 1"}, ManualClock(), 30).authorization(reference)
    assert "evil" not in str(caught.value)
    assert "plain-key" not in str(caught.value)


def test_no_release_gets_at_cohorts_own_secrets_nor_makes_the_gateway_wait(tmp_path: Path) -> None:
    own = tmp_path / "secrets"
    own.mkdir()
    (own / "operator.key").write_text("ck_inside")
    (tmp_path / "link").symlink_to(own / "operator.key")
    os.mkfifo(tmp_path / "pipe")
    keys = Keys({"COHORT_DATABASE_URL": "postgresql://u:inside@h/d"}, ManualClock(), 30, (own,))
    files = (own / "operator.key", tmp_path / "x" / ".." / "secrets" / "operator.key", tmp_path / "link", tmp_path / "pipe", own)
    for reference in ("env:COHORT_DATABASE_URL", *(f"file:{path}" for path in files)):
        with pytest.raises(KeyMissing) as caught:
            keys.authorization(reference)
        assert "inside" not in str(caught.value)


def test_records_are_what_the_contract_says(tmp_path: Path) -> None:
    clock = ManualClock()
    spool = Spool(tmp_path, "gw", 5, Limits(), clock, Log("gw", clock, io.StringIO()))
    spool.open()
    recorder = Recorder("gw", 5, spool, Metrics(), clock, 2)
    releases = [release("a", "http://x"), release("b", "http://x", route={"price": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}})]
    services = {"s": {"stable": "rel_a", "split": split("rel_b", share=1.0, shadow_share=0.5)}}
    service = compile_table(decode_table(encode(table(1, releases, services)))).services["s"]
    ongoing = recorder.assign(service, "u" * 32, stream=True)
    clock.advance(0.25)
    recorder.first(ongoing)
    clock.advance(0.25)
    ongoing.attempts, ongoing.result, ongoing.status, ongoing.usage = 1, Result.INTERRUPTED, 200, Usage(3, 4)
    recorder.end(ongoing)
    recorder.end(ongoing)
    shadow = recorder.copy(ongoing)
    recorder.end(shadow)
    assert recorder.feedback(service, "u" * 32, 0.5, negative=True)
    assigned, call, shadow_assigned, shadow_call, feedback = decode_batch(spool.read(Cursor(), 10) or b"").records
    base = {"gateway": "gw", "epoch": 5, "service": "s", "unit": "u" * 32, "rollout_id": "ro_1", "stage_run": 3}
    one = {**base, "seq": 1, "at_us": ongoing.at_us, "release": "rel_b", "arm": Arm.CANDIDATE, "share": 1.0}
    assert assigned == Call(kind="assigned", **one)
    ended = {"result": Result.INTERRUPTED, "status": 200, "first_us": 250_000, "total_us": 500_000, "stream": True, "route": "main"}
    assert call == Call(kind="call", **one, **ended, tokens_in=3, tokens_out=4, cost_usd_micro=11)
    assert (shadow_assigned.arm, shadow_assigned.share, shadow_assigned.seq) == (Arm.SHADOW, 0.5, 1)
    assert (shadow_call.kind, shadow_call.total_us) == ("call", 500_000)
    assert (feedback.kind, feedback.score, feedback.negative, feedback.seq, feedback.arm) == ("feedback", 0.5, True, 2, Arm.CANDIDATE)
    assert recorder.last_candidate_us == {"ro_1": ongoing.at_us}


def test_times_and_numbers_of_records_only_go_up(tmp_path: Path) -> None:
    clock = ManualClock()
    spool = Spool(tmp_path, "gw", clock.now_us(), Limits(), clock, Log("gw", clock, io.StringIO()))
    spool.open()
    recorder = Recorder("gw", clock.now_us(), spool, Metrics(), clock, 2)
    service = compile_table(decode_table(encode(table(1, [release("a", "http://x")])))).services["a"]
    calls = [recorder.assign(service, "u", stream=False) for _ in range(3)]
    assert [c.seq for c in calls] == [1, 2, 3]
    assert calls[0].at_us < calls[1].at_us < calls[2].at_us


def test_the_newest_rollouts_are_remembered(tmp_path: Path) -> None:
    clock = ManualClock()
    spool = Spool(tmp_path, "gw", 1, Limits(), clock, Log("gw", clock, io.StringIO()))
    spool.open()
    recorder = Recorder("gw", 1, spool, Metrics(), clock, 2)
    for name in ("ro_1", "ro_2", "ro_3"):
        services = {"s": {"stable": "rel_a", "split": split("rel_a", share=1.0, rollout_id=name)}}
        recorder.assign(
            compile_table(decode_table(encode(table(1, [release("a", "http://x")], services)))).services["s"], "u", stream=False
        )
    assert set(recorder.last_candidate_us) == {"ro_2", "ro_3"}


def test_cost_is_unknown_without_price_or_usage() -> None:
    assert cost_usd_micro(None, Usage(1, 1)) is None
    assert cost_usd_micro(Price(1, 1), Usage(1, None)) is None
    assert cost_usd_micro(Price(2.5, 10), Usage(1000, 100)) == 3500


@pytest.mark.parametrize(
    ("pieces", "usage", "done"),
    [
        (
            [b'data: {"choices":[]}\n\n', b'data: {"usage": {"prompt_tokens":1,"completion_tokens":2}}\n\n', b"data: [DONE]\n\n"],
            (1, 2),
            True,
        ),
        ([b'data: {"usa', b'ge":{"prompt_tokens":1,"compl', b'etion_tokens":2}}\n\ndata: [DO', b"NE]\n\n"], (1, 2), True),
        ([b'data: {"usage":null}\n\n'], (None, None), False),
        ([b'data: {"usage":{"prompt_tokens":-1,"completion_tokens":true}}\r\n\r\n'], (None, None), False),
        ([b'"usage":{}'], (None, None), False),
    ],
)
def test_usage_is_found_at_the_end_of_a_stream(pieces: list[bytes], usage: tuple[int | None, int | None], done: bool) -> None:
    tail = openai.Tail()
    for piece in pieces:
        tail.feed(piece)
    assert (tail.usage().tokens_in, tail.usage().tokens_out) == usage
    assert tail.done is done


def test_metrics_are_valid_prometheus_text() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    metrics = Metrics()
    for total_us in (1_000, 5_000, 90_000_000):
        metrics.called(('a "b"\\', "v1", Arm.STABLE), Result.OK, total_us, Usage(10, None))
    metrics.called(('a "b"\\', "v2", Arm.STABLE), Result.TIMEOUT, 7_000, Usage(1, 4))
    metrics.called(('a "b"\\', "v2", Arm.SHADOW), Result.OK, 1_000, Usage(1000, 1000))
    metrics.refused("invalid_json")
    text = metrics.text({"g": ("Words.", lambda: 1.5)}, {"c_total": ("Words.", lambda: 2)}).decode()
    families = {f.name: f for f in text_string_to_metric_families(text)}
    assert families["cohort_gateway_calls"].samples[0].labels == {"service": 'a "b"\\', "release": "v1", "arm": "stable", "result": "ok"}
    buckets = [s.value for s in families["cohort_gateway_call_seconds"].samples if s.name.endswith("_bucket")]
    assert (buckets[14], buckets[15], buckets[-1]) == (2, 3, 4)  # of the stable arm, whichever release; the shadow's are before
    tokens = families["gen_ai_client_token_usage"].samples
    assert {s.labels["gen_ai_token_type"]: s.value for s in tokens if s.name.endswith("_sum")} == {"input": 31, "output": 4}
    assert families["g"].samples[0].value == 1.5


def test_large_sums_are_told_to_the_microsecond() -> None:
    """Rounded to six digits a sum of days stands still for seconds, and a rate over it is zero or twice what it was."""
    metrics = Metrics()
    metrics.called(("s", "v1", Arm.STABLE), Result.OK, 123_456_789_012, Usage(None, None))
    text = metrics.text({}, {}).decode()
    assert 'cohort_gateway_call_seconds_sum{service="s",arm="stable"} 123456.789012\n' in text


def test_one_of_several_workers_says_whose_counts_its_are() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    alone, several = Metrics(), Metrics('gw-"2')
    for metrics in (alone, several):
        metrics.called(("a {b}", "v1", Arm.STABLE), Result.OK, 1_000, Usage(10, 4))
        metrics.refused("invalid_json")
    gauges = {"g": ("Words {of it}.", lambda: 1.5)}
    texts = [m.text(gauges, {"c_total": ("Words.", lambda: 2)}).decode() for m in (alone, several)]
    read = [[(s.name, s.labels, s.value) for f in text_string_to_metric_families(t) for s in f.samples] for t in texts]
    assert read[1] == [(name, {"worker": 'gw-"2', **labels}, value) for name, labels, value in read[0]]
    assert len(read[0]) > 50


def test_the_log_is_json_lines_and_repeats_a_lasting_condition_once_a_minute() -> None:
    out, clock = io.StringIO(), ManualClock()
    log = Log("gw", clock, out)
    for _ in range(3):
        log.seldom("full", reason="x")
    clock.advance(61)
    log.seldom("full", reason="x")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["full", "full"]


def test_a_route_that_is_down_is_told_with_its_service() -> None:
    services = {"s": {"stable": "rel_a", "split": split("rel_b", share=1.0)}}
    known = Breakers()
    known.keep(
        compile_table(decode_table(encode(table(1, [release("a", "http://x"), release("b", "http://x")], services))), known).breakers
    )
    for breaker in (known.of(name, "", "main", DEFAULT) for name in ("rel_a", "rel_b")):
        for _ in range(DEFAULT.breaker_failures):
            breaker.failed(0, 7, slow=False)
    assert [problem.partition(",")[0] for problem in known.problems()] == ["service s", "service s"]
    assert {trouble.service for trouble in known.troubles()} == {"s"}


@pytest.mark.parametrize(("weights", "shared"), [({}, True), ({"bias": 1.0}, False)])
def test_a_candidate_that_routes_like_the_stable_release_wants_the_same_share(weights: dict[str, float], shared: bool) -> None:
    made = [release("a", "http://x"), release("b", "http://x")]
    for one, its in zip(made, ({}, weights), strict=True):
        one["routes"].append({**one["routes"][0], "name": "weak"})
        one["routing"] = {"strong": "main", "weak": "weak", "strong_share_range": [0.5, 0.7], "weights": its}
    services = {"s": {"stable": "rel_a", "strong_share": 0.62, "split": split("rel_b", share=0.5)}}
    shares = compile_table(decode_table(encode(table(1, made, services)))).strong_shares
    assert shares == {("s", "rel_a"): 0.62} | ({("s", "rel_b"): 0.62} if shared else {})


@pytest.mark.parametrize(("share", "like"), [(0.0, "rel_a"), (0.5, "rel_a"), (1.0, None)])
def test_a_candidate_has_stables_boundary_until_it_has_all_traffic(share: float, like: str | None) -> None:
    services = {"s": {"stable": "rel_a", "split": split("rel_b", share=share)}}
    made = [release("a", "http://x"), release("b", "http://x")]
    assert compile_table(decode_table(encode(table(1, made, services)))).services["s"].routes_like == like
