"""Cedar against a plain model of what our policies mean: generated policy files, generated actions, the same answer."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.base.clock import ManualClock
from cohort.base.ids import ActionId
from cohort.kernel.actions import facts, parsing, policy_text, rules
from cohort.kernel.actions.facts import Facts
from cohort.kernel.actions.policy import Policy
from cohort.kernel.face import Request
from cohort.kernel.model import Answer, Autonomy, Level, Taint
from support_gate import OTHER, OWN, make_caller

CLOCK = ManualClock()
PATHS = ["a", "src/a", "src/b/c", "data/x"]
OPERATIONS = ["files.read", "files.write", "files.delete", "files.move", "terminal.run"]


@dataclass(frozen=True)
class Rule:
    """One policy in words that both sides understand. `starts`: a prefix of the path, None for any; `own`, `untrusted`: None for either."""

    name: str
    effect: str
    asks: bool
    operations: tuple[str, ...]
    starts: str | None
    own: bool | None
    untrusted: bool | None
    risk_from: int

    def cedar(self) -> str:
        notes = f'@id("{self.name}")' + (' @answer("ask")' if self.asks else "")
        actions = ", ".join(f'Action::"{name}"' for name in self.operations)
        conditions = [f"context.risk >= {self.risk_from}"]
        if self.untrusted is not None:
            conditions.append(f"context.untrusted == {str(self.untrusted).lower()}")
        if self.starts is not None:
            conditions.append(f'resource is File && resource.path like "{self.starts}*"')
        if self.own is not None:
            conditions.append(f"resource is File && resource.own == {str(self.own).lower()}")
        return f"{notes} {self.effect} (principal, action in [{actions}], resource) when {{ {' && '.join(conditions)} }};"

    def matches(self, found: Facts, resource: str) -> bool:
        path = resource.partition("/")[2]
        file = found.row.name.startswith("files.")
        return (
            found.row.name in self.operations
            and round(found.risk * 100) >= self.risk_from
            and self.untrusted in (None, found.taint.untrusted)
            and (self.starts is None or (file and path.startswith(self.starts)))
            and (self.own is None or (file and found.own == self.own))
        )


def modelled(rules: list[Rule], found: Facts) -> Answer:
    """Deny over ask over allow, over every resource."""
    matched = [rule for rule in rules for resource in found.resources if rule.effect == "forbid" and rule.matches(found, resource)]
    if any(not rule.asks for rule in matched):
        return Answer.DENY
    shipped = found.row.name == "terminal.run" and found.caller.agent.autonomy is not Autonomy.AGGRESSIVE and found.shell
    return Answer.ASK if matched or shipped else Answer.ALLOW


def waived(rules: list[Rule], found: Facts) -> bool:
    return all(any(rule.effect == "permit" and rule.matches(found, resource) for rule in rules) for resource in found.resources)


rule_values = st.builds(
    Rule,
    name=st.just(""),
    effect=st.sampled_from(["permit", "forbid"]),
    asks=st.booleans(),
    operations=st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=3, unique=True).map(tuple),
    starts=st.sampled_from([None, "src/", "a", "data/"]),
    own=st.sampled_from([None, True, False]),
    untrusted=st.sampled_from([None, True, False]),
    risk_from=st.sampled_from([0, 15, 45, 75]),
)


@st.composite
def rule_lists(draw: st.DrawFn) -> list[Rule]:
    found = draw(st.lists(rule_values, max_size=5))
    return [Rule(f"r{number}", rule.effect, rule.asks and rule.effect == "forbid", *_rest(rule)) for number, rule in enumerate(found)]


def _rest(rule: Rule) -> tuple[tuple[str, ...], str | None, bool | None, bool | None, int]:
    return rule.operations, rule.starts, rule.own, rule.untrusted, rule.risk_from


@st.composite
def known_facts(draw: st.DrawFn) -> Facts:
    operation = draw(st.sampled_from(OPERATIONS))
    arguments: dict[str, object] = {"path": draw(st.sampled_from(PATHS)), "workspace": draw(st.sampled_from([OWN, OTHER]))}
    if operation == "files.write":
        arguments["content"] = "x"
    if operation == "files.move":
        arguments["to"] = draw(st.sampled_from(PATHS))
    if operation == "terminal.run":
        arguments = {"argv": [draw(st.sampled_from(["ls", "/bin/bash"]))]}
    caller = make_caller(CLOCK, autonomy=draw(st.sampled_from(list(Autonomy))))
    parsed = parsing.parse(Request(operation, arguments))
    action = parsed.bind(ActionId("act_" + "a" * 16), caller)
    taint = Taint(untrusted=draw(st.booleans()))
    return facts.gather(action, parsed.row, caller, taint, Level.FULL)


@settings(max_examples=150)
@given(rule_lists(), st.lists(known_facts(), min_size=1, max_size=4))
def test_cedar_and_the_plain_model_agree(rules: list[Rule], actions: list[Facts]) -> None:
    policy = Policy(policy_text.read("\n".join(rule.cedar() for rule in rules)), "hash")
    for found in actions:
        verdict = policy.judge(found)
        assert verdict.answer is modelled(rules, found), (found.action, verdict)
        if verdict.answer is Answer.ALLOW:
            assert verdict.waives is waived(rules, found)


@settings(max_examples=100)
@given(known_facts(), st.sampled_from([Answer.DENY, Answer.ASK]), st.booleans())
def test_an_answer_that_names_no_rule_counts_all_the_same(found: Facts, answer: Answer, waives: bool) -> None:
    """A refusal is a refusal by what it says, and not by how many rules it is made of."""
    decision = rules.combine(found, (), rules.Verdict(answer, (), waives=waives), "hash", approval_required=False)
    assert decision.answer is (Answer.DENY if rules.scope_finding(found) else answer)
    assert decision.rules
