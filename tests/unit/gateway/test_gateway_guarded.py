"""What must hold although somebody tries: addresses, files of its own, files left behind, words of errors, the ledger's lock."""

from __future__ import annotations

import asyncio
import errno
import io
import ipaddress
import json
import os
import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_kept_responses import files, keep, made

from cohort.base.clock import ManualClock
from cohort.gateway.addresses import AddressGuard, is_public
from cohort.gateway.cache.erasing import Erased
from cohort.gateway.compiled import compile_table
from cohort.gateway.contract import Arm, decode_table
from cohort.gateway.contract_content import ContentPolicy
from cohort.gateway.dialects.openai_same import parse_chat
from cohort.gateway.dialects.operations import CHAT
from cohort.gateway.http_connection import Connection
from cohort.gateway.keys import KeyMissing, Keys
from cohort.gateway.log import Log
from cohort.gateway.process import own_places
from cohort.gateway.settings import Limits, Settings
from cohort.gateway.spend.accounts import Limit
from cohort.gateway.spend.estimates import prompt_tokens_max
from cohort.gateway.spend.ledger import Ledger
from cohort.gateway.spend.lockout import FAILURES_MAX, Lockout
from cohort.gateway.telemetry.contents import Contents, Sample
from support_gateway import release, table

LIMIT = Limit("all", 1000, "all")


def test_clients_of_ipv4_on_a_socket_for_both_are_told_apart(clock: ManualClock) -> None:
    lockout = Lockout(clock)
    for _ in range(FAILURES_MAX):
        lockout.failed("::ffff:192.0.2.1")
    assert lockout.wait_s("::ffff:192.0.2.1") > 0
    assert lockout.wait_s("192.0.2.1") > 0
    assert lockout.wait_s("::ffff:192.0.2.2") == 0


@pytest.mark.parametrize("address", ["fec0::1", "feff::1"])
def test_addresses_of_a_site_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert not AddressGuard(()).permits(address)


def test_no_release_gets_the_password_of_the_cache_nor_what_the_gateway_keeps(tmp_path: Path) -> None:
    data, ledger, secret = tmp_path / "data", tmp_path / "ledger", tmp_path / "upstream.key"
    password = tmp_path / "redis.password"
    for file in (data / "responses" / "kept", ledger / "x", password, secret):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("inside")
    places = {"unit_key_file": tmp_path / "own" / "unit", "link_token_file": tmp_path / "own" / "token", "shared_dir": ledger}
    settings = Settings("gw", "127.0.0.1", 0, data, cache_redis_password_file=password, **places)
    keys = Keys({}, ManualClock(), 30, own_places(settings))
    for file in (data / "responses" / "kept", ledger / "x", password):
        with pytest.raises(KeyMissing, match="own"):
            keys.authorization(f"file:{file}")
    assert keys.authorization(f"file:{secret}") == b"authorization: Bearer inside\r\n"


def test_a_response_that_was_not_written_whole_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, lines = made(tmp_path, ManualClock())

    def full(_from: str, _to: str) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "rename", full)
    keep(kept, 1)
    assert "response_not_kept" in lines.getvalue()
    assert files(tmp_path) == []


@pytest.mark.parametrize("base_url", ["", "ftp://x", "http://a b/", "http://x:99999/v1", "http://x/\r\nevil: 1"])
def test_a_table_with_an_address_of_embeddings_that_is_none_is_refused(base_url: str) -> None:
    semantic = {"embeddings": {"base_url": base_url, "model": "m"}}
    body = table(1, [release("well", "http://127.0.0.1:1/v1", cache={"semantic": semantic})])
    with pytest.raises(ValueError, match=r"embeddings\.base_url|Port"):
        compile_table(decode_table(json.dumps(body).encode()))


def test_a_number_that_cannot_be_kept_does_not_hold_up_other_workers(tmp_path: Path, clock: ManualClock) -> None:
    one, other = Ledger(tmp_path, clock), Ledger(tmp_path, clock)
    absurd: Any = 10**30
    with pytest.raises((ValueError, OverflowError)):
        one.settle(one.reserve([LIMIT], 5, 60.0), absurd)
    assert other.reserve([LIMIT], 5, 60.0).amount == 5
    one.close()
    other.close()


class Host:
    """What a connection needs of its server to begin."""

    def __init__(self) -> None:
        self.handler = self.turn = self.table_authorization = None
        self.draining = False
        self.limits = Limits()
        self.lines = io.StringIO()
        self.log = Log("gw", ManualClock(), self.lines)
        self.loop = asyncio.new_event_loop()


def test_the_words_of_an_error_within_are_not_in_the_log() -> None:
    host: Any = Host()
    reply: Any = SimpleNamespace(started=False, send=lambda *_, **__: None)
    written = "what somebody wrote"
    try:
        raise KeyError(written)
    except KeyError as error:
        Connection(host)._crashed(reply, error)
    host.loop.close()
    assert "test_gateway_guarded" in host.lines.getvalue()
    assert "KeyError" in host.lines.getvalue()
    assert written not in host.lines.getvalue()


def test_a_request_nested_deeper_than_python_has_its_bound() -> None:
    part: Any = "data:image/png;base64," + "A" * 20_000
    for _ in range(900):
        part = [part]
    message = {"role": "user", "content": [{"type": "image_url", "deep": part}]}
    body = b'{"model":"well","messages":[%s]}' % json.dumps(message).encode()
    assert prompt_tokens_max(parse_chat(CHAT, body)) < 20_000 // 2


def test_a_sample_that_was_not_written_whole_leaves_nothing(tmp_path: Path, clock: ManualClock) -> None:
    folder, lines, told = tmp_path / "contents", io.StringIO(), asyncio.Event()

    class Told(io.StringIO):
        def write(self, text: str) -> int:
            told.set()
            return lines.write(text)

    contents = Contents(folder, 1, Limits(), clock, Log("gw", clock, Told()), Erased(clock), lambda _: False)
    ongoing: Any = SimpleNamespace(seq=1, unit="a" * 32, arm=Arm.STABLE, tape=None)
    asked = {"messages": [{"role": "user", "content": "word " * 200}]}

    async def kept() -> None:
        running = asyncio.create_task(contents.run())
        contents.ended(Sample(contents, ongoing, asked, ContentPolicy(1.0, 2000), clock.monotonic_s()))
        await told.wait()
        running.cancel()

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # stands in for a disk that is full
    try:
        asyncio.run(asyncio.wait_for(kept(), 10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "content_not_kept" in lines.getvalue()
    assert list(folder.iterdir()) == []
