"""Documents from people: what is read, what is refused, and what the error says."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cohort.base.documents import DOCUMENT_BYTES_MAX, dotted, load_document, parse_document
from cohort.base.errors import CohortError
from cohort.base.yaml_text import DEPTH_MAX


def value(text: str) -> Any:
    return load_document(text, "x.yaml").value


def refused(text: str) -> CohortError:
    with pytest.raises(CohortError) as caught:
        load_document(text, "x.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("", None), ("~", None), ("null", None), ("true", True), ("False", False), ("0", 0), ("-7", -7), ("+7", 7), ("4.1", 4.1),
        ("1e3", 1000.0), (".5", 0.5), ("5.", 5.0), ("2.5e-3", 0.0025), ("4.1.0", "4.1.0"), ("e5", "e5"), ("1e", "1e"), (".", "."), ("-", None),
        ("2026-01-01", "2026-01-01"), ("word", "word"), ("two words", "two words"), ("'yes'", "yes"), ('"0777"', "0777"),
        ('"null"', "null"), ("y", "y"), ("N", "N"), ("openai", "openai"), ("http://h:80/p", "http://h:80/p"), ("env:KEY", "env:KEY"),
        ("|\n  yes\n", "yes\n"), (">\n  a\n  b\n", "a b\n"), ("[1, x]", [1, "x"]), ("{b: {c: 1}}", {"b": {"c": 1}}), ("[]", []), ("{}", {}),
        ("1_a", "1_a"), ("12:61", "12:61"), ("0.5.", "0.5."), ("Grüße", "Grüße"), ('"\\u00fc \\t"', "ü \t"),
    ],
)  # fmt: skip
def test_a_scalar_is_what_it_looks_like(written, meant):
    if written == "-":
        assert refused("a: -").code == "DOCUMENT_INVALID"
        return
    found = value(f"a: {written}")["a"]
    assert found == meant
    assert type(found) is type(meant)


@pytest.mark.parametrize(
    "written",
    ["yes", "No", "on", "OFF", "0777", "007", "0o17", "0x1F", "0b11", "1_000", "1_0.5", "12:30", "1:30:59.5", ".inf", "-.Inf", ".NaN", "1e999", "9" * 5000],
)  # fmt: skip
def test_a_scalar_that_surprises_is_refused_with_its_line_and_the_fix(written):
    error = refused(f"first: 1\na:\n  b: {written}\n")
    assert error.code == "DOCUMENT_INVALID"
    assert error.message.startswith("x.yaml:3: a.b: ")
    assert error.field == "a.b"
    assert "quotes" in error.hint


@pytest.mark.parametrize(
    "text", ["a: &x 1", "a: &x [1]", "a: &x {b: 1}", "&x a: 1", "a: *x", "a: [*x]", "*x : 1", "a: &x [1]\nb: [*x, *x]"]
)
def test_anchors_and_aliases_are_refused(text):
    assert "anchors and aliases" in refused(text).message


def test_a_billion_laughs_cost_nothing():
    lines = ["a0: &a0 [ha, ha]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    assert "x.yaml:1" in refused("\n".join(lines)).message


@pytest.mark.parametrize("text", ["a: !!python/object:os.system x", "a: !!str 1", "a: !secret x", "!!map {a: 1}", "!x a: 1"])
def test_tags_are_refused(text):
    assert "tag" in refused(text).message


def test_a_merge_key_is_refused():
    assert "<<" in refused("a: 1\n<<: {b: 2}").message
    assert value('"<<": 1') == {"<<": 1}


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a: ", "}")])
def test_nesting_has_a_limit(opening, closing):
    depth = DEPTH_MAX - 1
    value(f"a: {opening * depth}1{closing * depth}")
    assert "nested" in refused(f"a: {opening * (depth + 1)}1{closing * (depth + 1)}").message
    assert "nested" in refused(f"a: {opening * 100_000}").message


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("a: 1\na: 2", "x.yaml:2: a", "given twice"),
        ("a:\n  b: 1\n  c: 2\n  b: 3", "x.yaml:4: a.b", "given twice"),
        ('{"a": 1, "a": 2}', "x.yaml:1: a", "given twice"),
        ("a: 1\n---\nb: 1", "x.yaml:2", "second document"),
        ("? [a]\n: 1", "x.yaml:1", "not a word"),
        ("a: 1\n  b: 2", "x.yaml:2", "not valid YAML"),
        ("a: [1, 2", "x.yaml:", "not valid YAML"),
        ("a: 1\nb: \x00", "x.yaml:2", "not valid YAML"),
        ("a: \ud800", "x.yaml", "Unicode"),
        ("", "x.yaml:1", "nothing"),
        ("# only a comment", "x.yaml:1", "nothing"),
        ("- 1", "x.yaml:1", "list"),
        ("text", "x.yaml:1", "str"),
    ],
)
def test_a_text_that_cannot_be_read_names_the_place(text, place, problem):
    error = refused(text)
    assert error.code == "DOCUMENT_INVALID"
    assert error.message.startswith(place)
    assert problem in error.message
    assert error.hint


def test_a_document_too_large_is_refused_before_it_is_read():
    assert refused("a: " + "x" * DOCUMENT_BYTES_MAX).code == "FILE_TOO_LARGE"
    assert refused("a: " + "ü" * (DOCUMENT_BYTES_MAX // 2)).code == "FILE_TOO_LARGE"


def test_json_is_read_as_it_is_even_with_tabs():
    data = {"a": [1, 2.5, None, True, "\t\\/ü"], "b": {"c": {}}}
    assert value(json.dumps(data, indent="\t")) == data
    assert value(json.dumps(data)) == data


def test_json_may_write_one_character_as_two_escapes():
    data = {"a": "\U0001f30a\U0001f30a \\ud83c\\udf0a"}
    assert value(json.dumps(data)) == data
    assert "not valid YAML" in refused('{"a": "\\ud83c"}').message


def test_keys_are_text_as_written():
    assert value("1: a\non: b\n4.10: c\n") == {"1": "a", "on": "b", "4.10": "c"}


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    price: float = 0
    api_key: Annotated[str, Field(pattern="^env:")] = "env:A"


def _short(name: str) -> str:
    if len(name) > 3:
        raise ValueError("Too long a name")
    return name


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    version: str
    share: Annotated[float, Field(ge=0, le=1)] = 0
    routes: dict[Annotated[str, AfterValidator(_short)], Inner] = {}
    stages: list[Inner] = []


def problem(text: str) -> CohortError:
    with pytest.raises(CohortError) as caught:
        parse_document(Outer, load_document(text, "x.yaml"))
    return caught.value


def test_a_right_document_becomes_the_model():
    parsed = parse_document(Outer, load_document("version: a\nstages: [{price: 1}]", "x.yaml"))
    assert parsed.stages[0].price == 1


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("share: 1", "x.yaml:1: version: missing", "Add `version`."),
        ("version: a\nshare: 2", "x.yaml:2: share: input should be less than or equal to 1, found 2", "Correct `share`."),
        ("version: 4.10", "x.yaml:1: version: input should be a valid string, found 4.1", "Put the value of `version` in quotes."),
        ("version: a\nshaer: 1", "x.yaml:2: shaer: unknown field", "Did you mean `share`?"),
        ("version: a\nroutes:\n  m:\n    prise: 1", "x.yaml:4: routes.m.prise: unknown field", "Did you mean `price`?"),
        (
            "version: a\nstages:\n- price: 1\n- zzz: 1",
            "x.yaml:4: stages[1].zzz: unknown field",
            "Remove it, or use one of: api_key, price.",
        ),
        ("version: a\nroutes: {main: {}}", "x.yaml:2: routes.main: too long a name, found 'main'", "Correct `routes.main`."),
        ("version: []", "x.yaml:1: version: input should be a valid string", "Correct `version`."),
    ],
)
def test_a_wrong_field_is_named_with_its_line_and_the_fix(text, message, hint):
    error = problem(text)
    assert (error.message, error.hint) == (message, hint)


def test_further_problems_are_counted():
    assert problem("version: 1\nshare: 2\nx: 1").message.endswith("(2 more)")


def test_what_may_be_a_secret_is_never_repeated():
    error = problem("version: a\nroutes: {m: {api_key: sk-very-secret}}")
    assert error.field == "routes.m.api_key"
    assert "sk-very-secret" not in str(error.problem())


def test_what_was_found_is_cut():
    assert len(problem("version: a\nroutes: {" + "x" * 5000 + ": {}}").message) < 6000
    assert "..." in problem("version: a\nshare: " + "x" * 5000).message


def test_a_path_reads_like_the_document():
    assert dotted(("routes", "main", "provider")) == "routes.main.provider"
    assert dotted(("stages", 2, "traffic_pct")) == "stages[2].traffic_pct"
