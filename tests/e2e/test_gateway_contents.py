"""Samples of content at a real gateway: off by default, redacted before anything is written, bounded, erased with their person."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cohort.base.errors import CohortError, Retry
from cohort.delivery.cache_state import Forgotten, Keeping, Person
from cohort.delivery.contents import Content, Contents
from cohort.delivery.dataplane_http import HttpDataPlane
from cohort.gateway.contract import Arm, Call, pseudonym
from support_gateway import TOKEN, UNIT_KEY, GatewayProcess, release, split, table, until
from support_upstream import Upstream

SAMPLED = {"content": {"share": 1.0, "bytes_max": 2000}}
CARD, PASSWORD = "4111 1111 1111 1111", "correct-horse-9"
ASKED = f"I am anna@example.org, my card is {CARD} and password={PASSWORD}. Where is order 12?"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture
def gateway(upstream: Upstream, tmp_path: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path, limits={"contents_max": 3})
    process.push(tables(upstream, 1))
    yield process
    process.close()


@pytest.fixture
def plane(gateway: GatewayProcess) -> Iterator[HttpDataPlane]:
    made = HttpDataPlane(f"http://127.0.0.1:{gateway.port}", TOKEN)
    yield made
    made.close()


def tables(upstream: Upstream, version: int, **more: Any) -> dict[str, Any]:
    releases = [release("well", upstream.base_url, "rel_plain"), release("well", upstream.base_url, "rel_sampled", **SAMPLED)]
    releases += [
        release("numbered", upstream.base_url, "rel_cached", cache={}, **SAMPLED),
        release("tools", upstream.base_url, "rel_tools", **SAMPLED),
    ]
    names = {name: f"rel_{name}" for name in ("plain", "sampled", "cached", "tools")}
    return {**table(version, releases, names), **more}


def asked(gateway: GatewayProcess, service: str, text: str = ASKED, **more: Any) -> Call:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": text}]
    _, headers, _ = gateway.chat(service, messages=messages, **more)
    unit, count = headers["x-cohort-unit"], len(gateway.all_records())
    return until(lambda: next((c for c in reversed(gateway.records(count)) if c.unit == unit and c.kind == "call"), None), "the record")


def content(plane: HttpDataPlane, call: Call) -> Content:
    return until(lambda: plane.content(call.epoch, call.seq, call.arm.value), "the sample is written")


def on_disk(gateway: GatewayProcess) -> bytes:
    """Everything the gateway wrote."""
    return b"".join(path.read_bytes() for path in gateway.directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("stream", [False, True])
def test_a_sample_holds_both_sides_without_what_must_not_be_kept(gateway: GatewayProcess, plane: HttpDataPlane, stream: bool) -> None:
    call = asked(gateway, "sampled", stream=stream)
    assert call.content
    found = content(plane, call)
    assert [(said.role, said.text) for said in found.asked] == [
        ("system", "Be kind."),
        ("user", "I am [email], my card is [card] and password=[redacted] Where is order 12?"),
    ]
    assert found.answered == "Hello."
    assert found.found == {"card": 1, "email": 1, "credential": 1}
    written = on_disk(gateway)
    for secret in ("anna@example.org", CARD, PASSWORD):
        assert secret.encode() not in written
    (path,) = (gateway.data_dir / "contents").iterdir()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_without_the_section_and_with_the_switch_thrown_nothing_is_kept(gateway: GatewayProcess, upstream: Upstream) -> None:
    assert not asked(gateway, "plain").content
    gateway.push(tables(upstream, 2, killed=["trace.content"]))
    assert not asked(gateway, "sampled").content
    assert not (gateway.data_dir / "contents").exists()


def test_the_copy_of_a_sampled_call_does_not_say_that_it_has_a_sample(gateway: GatewayProcess, upstream: Upstream) -> None:
    body = tables(upstream, 2)
    body["services"]["sampled"]["split"] = split("rel_plain", shadow_share=1.0)
    gateway.push(body)
    gateway.chat("sampled")
    calls = until(lambda: [call for call in gateway.all_records() if call.kind == "call"][1:] and gateway.all_records(), "both records")
    assert {call.arm: call.content for call in calls if call.kind == "call"} == {Arm.STABLE: True, Arm.SHADOW: False}


def test_a_kept_answer_and_a_tool_call_are_samples_as_well(gateway: GatewayProcess, plane: HttpDataPlane) -> None:
    first, again = asked(gateway, "cached", temperature=0), asked(gateway, "cached", temperature=0)
    assert (first.cache, again.cache) == ("", "l1")
    assert content(plane, first).answered == content(plane, again).answered != ""
    assert '"weather"' in content(plane, asked(gateway, "tools")).answered


def test_a_long_text_is_cut_and_one_too_long_to_look_through_is_not_kept(gateway: GatewayProcess, plane: HttpDataPlane) -> None:
    cut = content(plane, asked(gateway, "sampled", "long words " * 400)).asked[-1].text
    assert cut.startswith("long words")
    assert cut.endswith(" [cut]")
    assert len(cut) <= 2006
    assert content(plane, asked(gateway, "sampled", "x" * 20_000)).asked[-1].text == "[20000 characters, more than are looked through]"


def test_an_erasure_reaches_the_samples_of_a_person_alone(gateway: GatewayProcess, plane: HttpDataPlane) -> None:
    hers, his = asked(gateway, "sampled", user="anna"), asked(gateway, "sampled", user="bert")
    content(plane, hers), content(plane, his)
    unit = pseudonym(bytes.fromhex(UNIT_KEY), "anna")
    assert plane.erase(Keeping.CONTENTS, Person(subject="anna")) == Forgotten(unit, 1)
    assert plane.content(hers.epoch, hers.seq, "stable") is None
    assert not [path for path in (gateway.data_dir / "contents").iterdir() if unit in path.name]
    assert content(plane, his).answered == "Hello."
    assert plane.erase(Keeping.CONTENTS, Person(unit=unit)) == Forgotten(unit, 0)


def test_an_erasure_that_cannot_be_done_says_so(gateway: GatewayProcess, plane: HttpDataPlane) -> None:
    call = asked(gateway, "sampled", user="anna")
    content(plane, call)
    (path,) = (gateway.data_dir / "contents").iterdir()
    path.unlink()
    path.mkdir()  # it cannot be removed as a file is
    with pytest.raises(CohortError) as caught:
        plane.erase(Keeping.CONTENTS, Person(subject="anna"))
    assert (caught.value.code, caught.value.retry) == ("CACHE_NOT_ERASED", Retry.SAFE)


def test_the_oldest_samples_make_room_and_the_rest_outlives_the_process(gateway: GatewayProcess, plane: HttpDataPlane) -> None:
    calls = [asked(gateway, "sampled", f"question {number}") for number in range(5)]
    content(plane, calls[-1])
    assert [plane.content(call.epoch, call.seq, "stable") is not None for call in calls] == [False, False, True, True, True]
    pushed, newest = gateway.pushed, calls[-1]
    gateway.kill()
    gateway.start()
    gateway.push({**pushed, "version": 2})
    begun_again = HttpDataPlane(f"http://127.0.0.1:{gateway.port}", TOKEN)
    assert content(begun_again, newest).asked[-1].text == "question 4"
    begun_again.close()


def test_samples_over_their_time_are_gone(upstream: Upstream, tmp_path: Path) -> None:
    process = GatewayProcess(tmp_path, limits={"contents_kept_s": 3600})
    try:
        process.push(tables(upstream, 1))
        reader = HttpDataPlane(f"http://127.0.0.1:{process.port}", TOKEN)
        call = asked(process, "sampled")
        content(reader, call)
        process.kill()
        (path,) = (process.data_dir / "contents").iterdir()
        os.utime(path, (path.stat().st_mtime - 4000,) * 2)
        process.start()
        process.push({**process.pushed, "version": 2})
        reader.close()
        reader = HttpDataPlane(f"http://127.0.0.1:{process.port}", TOKEN)
        assert reader.content(call.epoch, call.seq, "stable") is None
        content(reader, asked(process, "sampled"))
        assert not path.exists()
        reader.close()
    finally:
        process.close()


def test_who_looks_is_recorded_before_anything_is_shown(gateway: GatewayProcess, plane: HttpDataPlane) -> None:
    call = asked(gateway, "sampled")
    content(plane, call)
    noted: list[Any] = []
    assert Contents([plane], noted.append).read(call, "anna").answered == "Hello."
    assert noted == [{"event": "content_read", "request": f"{call.gateway}/{call.epoch}/{call.seq}", "unit": call.unit, "actor": "anna"}]

    def full(_body: Any) -> None:
        raise CohortError("AUDIT_UNAVAILABLE", "the log takes no record")

    with pytest.raises(CohortError, match="the log takes no record"):
        Contents([plane], full).read(call, "anna")
    with pytest.raises(CohortError, match="no content of the call"):
        Contents([plane], noted.append).read(asked(gateway, "plain"), "anna")
    assert len(noted) == 1


def test_the_endpoint_of_samples_is_controls_alone(gateway: GatewayProcess) -> None:
    assert gateway.request("GET", "/-/contents?epoch=1&seq=1&arm=stable")[0] == 404
    assert gateway.link("GET", "/-/contents?epoch=1&seq=1&arm=stable") == (200, b"null")
    status, body = gateway.link("GET", "/-/contents?epoch=../../etc&seq=1&arm=stable")
    assert (status, json.loads(body)["code"]) == (422, "FIELD_INVALID")
