"""An answer that is remembered is the one Cedar would give: whatever a policy reads, and in whatever order it is asked."""

from __future__ import annotations

import json
from dataclasses import replace

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.base.clock import ManualClock
from cohort.base.ids import ActionId, AgentId
from cohort.kernel.actions import facts, parsing, policy_text
from cohort.kernel.actions.facts import Facts
from cohort.kernel.actions.policy import _CONTEXT, Policy
from cohort.kernel.actions.policy_answers import ANSWERS_MAX, QUESTION_CHARS_MAX, Answers
from cohort.kernel.actions.policy_reads import CONTEXT_NAMES, Reads, reads_of
from cohort.kernel.actions.rules import Verdict
from cohort.kernel.face import Request
from cohort.kernel.model import Answer, Autonomy, Level, Taint
from support_gate import OTHER, OWN, make_caller

CLOCK = ManualClock()
OTHER_AGENT = "ag_" + "z" * 16
PATHS = ["a", "src/a", "b"]
ANY = [
    "context.risk > 30", "context.risk_max < 50", "context.level >= 4", "context.untrusted", "context.private", "context.network", "context.shell",
    'context.command like "ls*"', 'context.words.contains("-l")', 'context.task == "t"', "context.delegated", "context.risk < context.risk_max",
    'context has "risk"', "[context.private, true].contains(context.untrusted)", 'principal.autonomy == "standard"',
    'principal.name like "s*"', f'principal == Agent::"{make_caller(CLOCK).agent.id}"', 'action == Action::"files.read"',
    '(if context.untrusted then principal else Agent::"x") == principal',
]  # fmt: skip
OF_FILES = [
    "resource.own", 'resource.path like "src/*"', 'resource.name == "a"', f'resource.workspace == "{OWN}"', 'resource is File && resource.own',
    f'resource == File::"{OWN}/a"', f'File::"{OWN}/a" has own && File::"{OWN}/a".own', 'resource has path && resource["path"] == "b"',
    f'(if context.private then resource else File::"{OWN}/a") == resource', f'[resource, File::"{OTHER}/b"].contains(File::"{OTHER}/b")',
]  # fmt: skip
SCOPES = [
    "principal, {action}, resource",
    f'principal, {{action}}, resource == File::"{OWN}/b"',
    "principal is Agent, {action}, resource is File",
]
FILES = "action in [" + ", ".join(f'Action::"files.{name}"' for name in ("read", "write", "move", "delete")) + "]"


def both(terms: list[str]) -> st.SearchStrategy[str]:
    return st.recursive(
        st.sampled_from(terms),
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda three: f"({' '.join(three)})"),
            inner.map(lambda one: f"!({one})"),
        ),
        max_leaves=3,
    )


@st.composite
def policies(draw: st.DrawFn) -> str:
    found = []
    for number in range(draw(st.integers(1, 3))):
        files = draw(st.booleans())
        scope = draw(st.sampled_from(SCOPES)).format(action=FILES) if files else "principal, action, resource"
        effect = draw(st.sampled_from(["permit", "forbid", '@answer("ask") forbid']))
        condition = draw(both(OF_FILES + ANY if files else ANY))
        found.append(f'@id("r{number}") {effect} ({scope}) when {{ {condition} }};')
    return "\n".join(found)


@st.composite
def known_facts(draw: st.DrawFn) -> Facts:
    operation = draw(st.sampled_from(["files.read", "files.move", "files.delete", "terminal.run"]))
    arguments: dict[str, object] = {"path": draw(st.sampled_from(PATHS)), "workspace": draw(st.sampled_from([OWN, OTHER]))}
    if operation == "files.move":
        arguments["to"] = draw(st.sampled_from(PATHS))
    if operation == "terminal.run":
        arguments = {"argv": draw(st.sampled_from([["ls"], ["ls", "-l"], ["sh", "-c", "x"]])), "network": draw(st.booleans())}
    caller = make_caller(CLOCK, autonomy=draw(st.sampled_from([Autonomy.STANDARD, Autonomy.AGGRESSIVE])))
    if draw(st.booleans()):
        caller = replace(caller, agent=replace(caller.agent, id=AgentId(OTHER_AGENT), name="other"))
    parsed = parsing.parse(Request(operation, arguments))
    action = parsed.bind(ActionId("act_" + "a" * 16), caller)
    taint = Taint(untrusted=draw(st.booleans()), private=draw(st.booleans()))
    return facts.gather(action, parsed.row, caller, taint, draw(st.sampled_from([Level.FULL, Level.FILES])))


def loaded(text: str) -> policy_text.PolicyText | None:
    """None: Cedar does not take it, as a file that a person wrote may not be taken."""
    try:
        return policy_text.read(text)
    except policy_text.CohortError:
        return None


@settings(max_examples=80)
@given(policies(), st.lists(known_facts(), min_size=2, max_size=6))
def test_a_remembered_answer_is_the_one_that_cedar_gives_afresh(text: str, actions: list[Facts]) -> None:
    read = loaded(text)
    if read is None:
        return
    policy = Policy(read, "hash")
    for found in actions + actions:
        assert policy.judge(found) == Policy(read, "hash").judge(found)


@pytest.mark.parametrize(
    ("condition", "reads"),
    [
        ('context.shell && action == Action::"files.read"', Reads(("network", "risk_max", "shell"), False, (), False)),
        ("resource is File && resource.own", Reads(("network", "risk_max", "shell"), False, ("own",), False)),
        ("principal == principal", Reads(("network", "risk_max", "shell"), True, (), False)),
        (f'resource == File::"{OWN}/a"', Reads(("network", "risk_max", "shell"), True, (), True)),
        ('context == {"shell": true}', Reads(CONTEXT_NAMES, False, (), False)),
        ('{"Var": context.risk, ".": 3}.Var > 2', Reads(("network", "risk", "risk_max", "shell"), False, (), False)),
    ],
)
def test_what_a_policy_reads_is_known(condition: str, reads: Reads) -> None:
    text = policy_text.shipped() + f"permit (principal, {FILES}, resource) when {{ {condition} }};"
    body = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    assert reads_of(body.values()) == reads


@pytest.mark.parametrize(
    ("scope", "reads"),
    [
        ("principal, action, resource is File", (False, False)),
        ('principal, action, resource is File in File::"x"', (False, True)),
        ('principal, action, resource in File::"x"', (False, True)),
        ('principal == Agent::"x", action, resource', (True, False)),
    ],
)
def test_what_the_head_of_a_policy_reads_is_known(scope: str, reads: tuple[bool, bool]) -> None:
    found = reads_of(json.loads(cedarpy.policies_to_json_str(f"permit ({scope});"))["staticPolicies"].values())
    assert (found.principal, found.whole) == reads


def test_an_evaluation_that_failed_is_no_answer_to_remember() -> None:
    text = f"forbid (principal, {FILES}, resource) when {{ context.risk + 9223372036854775807 > 0 }};"
    policy = Policy(policy_text.read(text), "hash")
    parsed = parsing.parse(Request("files.read", {"path": "a"}))
    caller = make_caller(CLOCK)
    found = facts.gather(parsed.bind(ActionId("act_" + "a" * 16), caller), parsed.row, caller, Taint(), Level.FULL)
    assert [policy.judge(found).code for _ in range(2)] == ["POLICY_UNAVAILABLE"] * 2
    assert len(policy.answers) == 0


def test_every_name_of_the_context_is_known() -> None:
    assert set(CONTEXT_NAMES) == set(_CONTEXT)
    for name in CONTEXT_NAMES:
        assert f"{name}:" in policy_text.schema_text()


def test_the_policy_that_ships_is_asked_once_for_all_files() -> None:
    policy = Policy(policy_text.read(), "hash")
    caller = make_caller(CLOCK)
    for path in PATHS:
        parsed = parsing.parse(Request("files.read", {"path": path}))
        policy.judge(facts.gather(parsed.bind(ActionId("act_" + path[-1] * 16), caller), parsed.row, caller, Taint(), Level.FULL))
    assert len(policy.answers) == 1


def test_answers_are_kept_up_to_a_number_and_a_length() -> None:
    answers, verdict = Answers(), Verdict(Answer.ALLOW, ())
    for number in range(ANSWERS_MAX + 3):
        answers.put((number,), verdict)
    assert len(answers) == ANSWERS_MAX
    assert answers.get((0,)) is None
    answers.put(("x" * QUESTION_CHARS_MAX,), verdict)
    assert len(answers) == ANSWERS_MAX
    assert answers.get(("x" * QUESTION_CHARS_MAX,)) is None
    assert answers.get((ANSWERS_MAX,)) == verdict
