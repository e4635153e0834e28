"""What the embeddings server takes and refuses, and how it answers."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy
import pytest

from cohort.base.settings_embeddings import EmbeddingsLimits
from cohort.gateway.dialects.face import Refused
from cohort.gateway.embeddings.asking import answer, asked
from cohort.gateway.embeddings.model import Embedded

LIMITS = EmbeddingsLimits(texts_max=3, text_chars_max=20)
JSON = {b"content-type": b"application/json"}


class Two:
    """A model of two numbers."""

    name, dimension, tokens_max = "two", 2, 4

    def embed(self, texts: Any) -> list[Embedded]:
        raise NotImplementedError


def ask(headers: dict[bytes, bytes] = JSON, **fields: Any) -> Any:
    return asked(json.dumps({"model": "two", "input": "hi", **fields}).encode(), headers, Two(), LIMITS)


def test_a_text_and_a_list_of_texts_are_taken_in_both_forms() -> None:
    assert ask().texts == ("hi",)
    assert ask(input=["a", "b"], dimensions=2, encoding_format="float", user="x").texts == ("a", "b")
    assert (ask().base64, ask(encoding_format="base64").base64) == (False, True)


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"model": "three"}, 404, "model_not_found"),
        ({"model": None}, 404, "model_not_found"),
        ({"input": []}, 400, "input_invalid"),
        ({"input": None}, 400, "input_invalid"),
        ({"input": [1, 2]}, 400, "input_invalid"),
        ({"input": [[1, 2]]}, 400, "input_invalid"),
        ({"input": ["a", " \n"]}, 400, "input_invalid"),
        ({"input": ["a"] * 4}, 400, "input_too_many"),
        ({"input": "a" * 21}, 400, "input_too_long"),
        ({"dimensions": 3}, 400, "dimensions_unsupported"),
        ({"encoding_format": "hex"}, 400, "format_invalid"),
        ({"encoding_format": ["float"]}, 400, "format_invalid"),
    ],
)
def test_what_is_not_taken_is_refused_with_its_code(fields: dict[str, Any], status: int, code: str) -> None:
    with pytest.raises(Refused) as caught:
        ask(**fields)
    assert (caught.value.status, caught.value.code) == (status, code)


@pytest.mark.parametrize(("body", "headers"), [(b"{", JSON), (b"[]", JSON), (b"{}", {b"content-type": b"text/plain"})])
def test_what_is_no_json_is_refused(body: bytes, headers: dict[bytes, bytes]) -> None:
    with pytest.raises(Refused) as caught:
        asked(body, headers, Two(), LIMITS)
    assert caught.value.status in (400, 415)


def test_vectors_come_back_in_order_with_their_tokens_in_both_forms() -> None:
    found = [Embedded(tokens, numpy.array([tokens, 0.5], dtype=numpy.float32)) for tokens in (1, 3)]
    body = json.loads(answer(ask(input=["a", "b"]), found, Two()))
    assert [entry["embedding"] for entry in body["data"]] == [[1.0, 0.5], [3.0, 0.5]]
    assert [entry["index"] for entry in body["data"]] == [0, 1]
    assert (body["model"], body["usage"]) == ("two", {"prompt_tokens": 4, "total_tokens": 4})
    packed = json.loads(answer(ask(input=["a", "b"], encoding_format="base64"), found, Two()))["data"][1]["embedding"]
    assert numpy.frombuffer(base64.b64decode(packed), "<f4").tolist() == [3.0, 0.5]


def test_a_text_of_too_many_tokens_is_refused_and_not_cut() -> None:
    with pytest.raises(Refused) as caught:
        answer(ask(), [Embedded(5, None)], Two())
    assert (caught.value.status, caught.value.code) == (400, "input_too_long")
    assert "5 tokens, the model takes 4" in caught.value.message
