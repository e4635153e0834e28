"""What lies between two attempts, and calls of which there was none: each is told as what it was."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cohort.delivery.otlp_spans import spans_of
from cohort.delivery.trace_views import timeline_of
from support_gateway import GatewayProcess, release, table
from support_upstream import Exchange, Upstream, well

BUSY = b'{"error": {"message": "busy"}}'
MISSHAPEN = {"detail": [{"loc": None, "msg": "no such field"}, {"loc": ["body", 1], "msg": "odd"}]}
PATIENCE = {"timeout_s": 5, "reliability": {"first_byte_s": 0.5, "retries": 1, "retry_wait_s_max": 5}}


async def odd(exchange: Exchange) -> None:
    match exchange.seen.fields["model"]:
        case "busy" if exchange.seen.fields["messages"][0]["content"] not in asked_before:
            asked_before.add(exchange.seen.fields["messages"][0]["content"])
            exchange.writer.write(b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: %d\r\n\r\n%s" % (len(BUSY), BUSY))
        case "misshapen":
            exchange.whole(json.dumps(MISSHAPEN).encode(), status="422 Odd")
        case _:
            await well(exchange)


asked_before: set[str] = set()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    upstream, process = Upstream(behave=odd), GatewayProcess(tmp_path_factory.mktemp("gateway"))
    private = release("private", upstream.base_url, personal={"upstream": "refuse"})
    process.push(table(1, [release("busy", upstream.base_url, **PATIENCE), release("misshapen", upstream.base_url), private]))
    yield process
    process.close()
    upstream.close()


def test_the_limit_of_an_attempt_does_not_end_the_wait_behind_it(gateway: GatewayProcess) -> None:
    status, _, body = gateway.chat("busy", messages=[{"role": "user", "content": "once"}])
    assert (status, "Hello." in body.decode()) == (200, True)


def test_an_error_of_any_shape_keeps_its_status(gateway: GatewayProcess) -> None:
    status, _, body = gateway.chat("misshapen")
    assert (status, json.loads(body)["error"]["message"]) == (422, "None: no such field; body.1: odd")


def test_a_call_that_no_upstream_was_asked_has_no_attempt(gateway: GatewayProcess) -> None:
    status, _, _ = gateway.chat("private", messages=[{"role": "user", "content": "card 4111 1111 1111 1111"}])
    assert status == 400
    call = next(call for call in gateway.all_records() if call.service == "private")
    assert (call.attempts, call.code) == (0, "personal_data_refused")
    assert [bar.name for bar in timeline_of(call).bars if bar.attempt is not None] == []
    assert len(spans_of(call)) == 1
