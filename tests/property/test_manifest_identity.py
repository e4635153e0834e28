"""The identity of a release depends on what its manifest says and on nothing else; no text is anything but a manifest or an error."""

from __future__ import annotations

import json

import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cohort.base.documents import load_document
from cohort.base.errors import CohortError
from cohort.delivery.face import Bundle
from cohort.delivery.manifests import freeze, identity, shown
from manifest_texts import MANIFEST, PROMPT

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True)
numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-(2.0**53) + 1, 2.0**53 - 1) | st.floats(1e21, 1.7976931348623157e308)
WRITTEN = yaml.safe_load(MANIFEST)
PHASES = [phase for phase in Phase if phase is not Phase.explain]  # explaining traces the YAML parser line by line
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
flags = st.dictionaries(names, st.booleans() | numbers | texts, max_size=5)
routes = st.dictionaries(names, st.just({"provider": "openai", "base_url": "http://h", "model": "m"}), min_size=1, max_size=5)


def frozen(value: dict, **options):
    return freeze(Bundle("m.json", json.dumps(value, **options), {"prompts/support.md": PROMPT}))


@settings(max_examples=60, deadline=None, phases=PHASES)
@given(flags=flags, routes=routes, seed=st.randoms())
def test_the_way_of_writing_does_not_matter(flags, routes, seed):
    value = WRITTEN | {"flags": flags, "routes": routes}
    first = frozen(value)
    fields = list(value.items())
    seed.shuffle(fields)
    again = frozen(dict(fields), indent=2, ensure_ascii=False)
    assert again.digest == first.digest
    assert identity(json.loads(json.dumps(again.body))) == first.digest
    assert list(shown(first.body)["routes"]) == list(routes)


@settings(max_examples=60, deadline=None, phases=PHASES)
@given(one=flags, other=flags)
def test_two_meanings_have_two_identities(one, other):
    value = WRITTEN
    same = frozen(value | {"flags": one}).digest == frozen(value | {"flags": other}).digest
    assert same == (typed(one) == typed(other))


def typed(flags: dict) -> dict:
    """As JSON sees it: true is not 1, and 1.0 is 1."""
    return {name: (isinstance(value, bool), value) for name, value in flags.items()}


@settings(max_examples=300, deadline=None, phases=PHASES)
@given(text=st.text(st.sampled_from("ab:-[]{},&*!|>'\"%@`#?~ \n\t012.eyno<") | st.characters(), max_size=60))
def test_no_text_breaks_the_reader(text):
    found = read_or_refuse(text)
    if isinstance(found, CohortError):
        assert found.code == "DOCUMENT_INVALID"
        assert found.message.startswith("x")
        assert found.hint
    else:
        json.dumps(found, allow_nan=False)


def read_or_refuse(text: str) -> dict | CohortError:
    try:
        return load_document(text, "x").value
    except CohortError as error:
        return error


@settings(max_examples=100, deadline=None, phases=PHASES)
@given(
    value=st.dictionaries(
        texts, st.recursive(st.none() | st.booleans() | numbers | texts, lambda inner: st.lists(inner, max_size=3), max_leaves=8)
    )
)
def test_json_is_read_exactly(value):
    assert load_document(json.dumps(value), "x").value == value
