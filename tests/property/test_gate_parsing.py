"""Any request at all: it becomes one canonical action or is refused with a code, and what is canonical stays as it is."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.base.canonical import canonical_json
from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.base.ids import ActionId
from cohort.kernel.actions import parsing, records
from cohort.kernel.actions.catalogue import ROWS
from cohort.kernel.actions.invariants import confined
from cohort.kernel.face import Request
from cohort.kernel.model import Action
from support_gate import make_caller

CALLER = make_caller(ManualClock())
REFUSALS = {"ARGUMENT_INVALID", "OPERATION_UNKNOWN", "PATH_INVALID", "PATH_ESCAPES", "WORKSPACE_UNKNOWN"}

texts = st.one_of(
    st.text(max_size=20),
    st.text(alphabet="./\\\0a \u202e\ud800é", max_size=12),
    st.sampled_from(["a", "src/a", "https://a.example/", "http://[::1]:80/", "ls", "ws_" + "a" * 16, "pr_" + "a" * 16, "cpu", "GET"]),
)
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(texts, st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(), st.binary(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)


PLAUSIBLE: dict[str, st.SearchStrategy[Any]] = {
    "path": st.sampled_from(["a", "./a//b/", "", "é", "../a", "a/.."]),
    "to": st.sampled_from(["b", "b/./c"]),
    "cwd": st.sampled_from(["", "src/"]),
    "url": st.sampled_from(["HTTPS://A.example", "http://b\u00fccher.example:80/x?y#z", "https://u@a.example/"]),
    "argv": st.lists(st.sampled_from(["ls", "-l", "/bin/sh", ""]), max_size=3),
    "process": st.just("pr_" + "a" * 16),
    "workspace": st.just("ws_" + "b" * 16),
    "scopes": st.just(["files.read"]),
}


def value_for(name: str, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Mostly what the argument could be, sometimes anything."""
    if "enum" in schema:
        likely = st.sampled_from(schema["enum"])
    elif schema.get("type") in ("integer", "number"):
        likely = st.integers(0, 50)
    else:
        plain = {"boolean": st.booleans(), "object": st.just({}), "array": st.just([])}
        likely = PLAUSIBLE.get(name, plain.get(schema.get("type", ""), st.just("plain")))
    return st.integers(0, 19).flatmap(lambda number: values if number == 19 else likely)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    operation = draw(st.one_of(st.sampled_from(sorted(ROWS)), st.sampled_from(sorted(ROWS)), texts))
    schema = ROWS[operation].arguments if operation in ROWS else {"properties": {}, "required": []}
    wanted = {name: value_for(name, one) for name, one in schema["properties"].items()}
    optional = {name: one for name, one in wanted.items() if name not in schema["required"]}
    needed = {name: wanted[name] for name in schema["required"]}
    arguments = draw(st.fixed_dictionaries(needed, optional=optional))
    extra = draw(st.dictionaries(texts, values, max_size=2)) if draw(st.integers(0, 9)) == 9 else {}
    return Request(operation, {**arguments, **extra}, draw(texts), draw(st.floats()), draw(st.one_of(st.none(), texts)))


def read(request: Request) -> Action | None:
    """The action, or None when it was refused, as it should be."""
    try:
        return parsing.parse(request).bind(ActionId("act_a"), CALLER)
    except CohortError as error:
        if error.code not in REFUSALS:
            raise
        return None


def test_the_requests_below_are_not_all_refused() -> None:
    """The two properties would hold of an empty language too."""
    found = [read(Request(request.operation, request.arguments)) for request in drawn(200)]
    assert sum(action is not None for action in found) > 40


def drawn(count: int) -> list[Request]:
    kept: list[Request] = []

    @settings(max_examples=count, database=None)
    @given(requests())
    def keep(request: Request) -> None:
        kept.append(request)

    keep()
    return kept


@settings(max_examples=250)
@given(requests())
def test_any_request_is_an_action_or_a_coded_refusal(request: Request) -> None:
    action = read(Request(request.operation, request.arguments))
    read(request)
    if action is None:
        return
    assert len(action.digest) == 64
    assert len(canonical_json(records.without_payloads(action.arguments, records.ARGUMENTS_BYTES_MAX))) <= records.ARGUMENTS_BYTES_MAX
    if action.operation.startswith("files."):
        assert confined(action.resource.partition("/")[2])


@settings(max_examples=200)
@given(requests())
def test_what_is_canonical_means_itself(request: Request) -> None:
    action = read(Request(request.operation, request.arguments))
    if action is None:
        return
    given = {name: value for name, value in action.arguments.items() if not (name == "argv" and "shell" in action.arguments)}
    again = read(Request(action.operation, given))
    assert again is not None
    assert (again.digest, again.resource) == (action.digest, action.resource)
