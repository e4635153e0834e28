"""The upstream's request: the client's, but for what the release sets."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.gateway.dialects.face import Refused
from cohort.gateway.dialects.operations import CHAT
from cohort.gateway.rewriting import rewriting

PLAIN = rewriting("big", None, {})
RICH = rewriting("big", 'Say "model"', {"temperature": 0.2, "max_output_tokens": 800})


def apply(body: bytes, release: Any = PLAIN) -> bytes:
    return release.apply(CHAT.parse(CHAT, body))


def test_every_other_byte_stays_as_the_client_wrote_it() -> None:
    body = b'{"x":1.0,\n "model"\t:\r "s" ,"messages" : [ {"role":"user","content":"a \\"model\\" b"}], "z":12345678901234567890123}'
    assert apply(body) == body.replace(b'"s"', b'"big"')


def test_prompt_and_parameters_are_spliced_in() -> None:
    body = b'{ "model":"s", "messages": [{"role":"user","content":"hi"}], "z": 1.0}'
    spliced = apply(body, RICH)
    assert spliced.endswith(b'{"role":"user","content":"hi"}], "z": 1.0}')
    fields = json.loads(spliced)
    assert fields["messages"] == [{"role": "system", "content": 'Say "model"'}, {"role": "user", "content": "hi"}]
    assert (fields["model"], fields["temperature"], fields["max_completion_tokens"]) == ("big", 0.2, 800)


def test_a_system_message_of_the_client_stays_behind_the_release_s_own() -> None:
    body = b'{"model":"s","messages":[{"role":"system","content":"mine"},{"role":"user","content":"hi"}]}'
    assert [m["content"] for m in json.loads(apply(body, RICH))["messages"]] == ['Say "model"', "mine", "hi"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_token_limit_of_the_client_keeps_the_release_s_out(name: str) -> None:
    fields = json.loads(apply(b'{"model":"s","messages":[1],"%s":5,"temperature":null}' % name.encode(), RICH))
    assert fields[name] == 5
    assert len({"max_tokens", "max_completion_tokens"} & set(fields)) == 1
    assert fields["temperature"] is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"mod\\u0065l":"s","messages":[1]}',
        b'{"a":{"model":"s"},"mod\\u0065l":"s","messages":[1]}',
        b'{"a":{"model":"s"},"model":"s","messages":[1]}',
        b'{"a":["model"],"model":"s","messages":[1]}',
        b'{"model":"\\u0073","messages":[1]}',
        b'{"messages":[{"messages":[2]}],"model":"s"}',
    ],
)
def test_a_place_that_is_not_certain_is_written_out_again(body: bytes) -> None:
    for release in (PLAIN, RICH):
        fields = json.loads(apply(body, release), object_pairs_hook=lambda pairs: pairs)
        names = [name for name, _ in fields]
        assert len(names) == len(set(names))
        assert dict(fields)["model"] == "big"
        if "a" in names:
            assert json.dumps(dict(fields)["a"]).count("big") == 0


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"other","model":"s","messages":[1]}',
        b'{"model":"s","messages":[1],"m\\u006fdel":"s"}',
        b'{"a":{"model":1},"mod\\u0065l":"x","messages":[1],"model":"s"}',
    ],
)
def test_a_model_that_is_named_twice_is_not_written_at_all(body: bytes) -> None:
    for release in (PLAIN, RICH):
        with pytest.raises(Refused, match="stands twice") as refused:
            apply(body, release)
        assert (refused.value.code, refused.value.param) == ("field_repeated", "model")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8) | st.sampled_from(["model", "messages", "s"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["model", "messages", "a", "é", '"model"']), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=5), values, max_size=4),
    st.lists(values, min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from([PLAIN, RICH]),
)
def test_whatever_the_client_sends_only_the_release_s_own_fields_change(
    extra: dict[str, Any], messages: list[Any], ascii_only: bool, release: Any
) -> None:
    sent = {**extra, "model": "s", "messages": messages}
    sent.pop("stream", None)
    got = orjson.loads(apply(json.dumps(sent, ensure_ascii=ascii_only).encode(), release))
    prompt = [] if release is PLAIN else [{"role": "system", "content": 'Say "model"'}]
    expected = {**sent, "model": "big", "messages": [*prompt, *messages]}
    if release is RICH:
        expected = {"temperature": 0.2, "max_completion_tokens": 800, **expected}
    assert got == expected
