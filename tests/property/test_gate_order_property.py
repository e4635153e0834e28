"""8.1 for every sequence of actions: what was executed has an intent whose digest, token, policy hash and grant can be recomputed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.base.ids import AgentSessionId
from cohort.kernel.actions.gate import GateSettings
from cohort.kernel.face import Sign
from cohort.kernel.model import ApprovalState, Autonomy, Level, Outcome
from cohort.kernel.scopes import parse_scopes, permits
from migrated_database import migrated
from support_gate import OTHER, OWN, TOKEN, GateHouse

PATHS = st.sampled_from(["a", "src/b", "./src//b", "../x", ".git/hooks/x", "", "data/c"])
SCOPES_HELD = [("files.read",), ("files.write", "files.read"), (f"files.write:{OWN}/src/**",), ("system.execute", "network.http")]
requests = st.one_of(
    st.tuples(st.sampled_from(["files.read", "files.list", "files.mkdir", "files.delete"]), st.fixed_dictionaries({"path": PATHS})),
    st.tuples(st.just("files.write"), st.fixed_dictionaries({"path": PATHS, "content": st.text(max_size=5), "workspace": st.sampled_from([OWN, OTHER])})),
    st.tuples(st.just("files.move"), st.fixed_dictionaries({"path": PATHS, "to": PATHS})),
    st.tuples(st.just("terminal.run"), st.fixed_dictionaries({"argv": st.sampled_from([["ls"], ["sh", "-c", "x"], []]), "network": st.booleans()})),
    st.tuples(st.just("http.request"), st.fixed_dictionaries({"url": st.sampled_from(["https://known.example/", "https://new.example/", "x"])})),
    st.tuples(st.just("config.change"), st.fixed_dictionaries({"key": st.sampled_from(["flags.x", "kernel.x"]), "value": st.integers()})),
    st.tuples(st.sampled_from(["nonsense", "memory.read"]), st.just({"query": "x"})),
)  # fmt: skip
events = st.one_of(
    st.tuples(st.just("ask"), requests),
    st.tuples(st.just("ask"), requests),
    st.tuples(st.just("ask"), requests),
    st.tuples(st.just("answer"), st.booleans()),
    st.tuples(st.just("scopes"), st.sampled_from(SCOPES_HELD)),
    st.tuples(st.just("autonomy"), st.sampled_from(list(Autonomy))),
    st.tuples(st.just("level"), st.sampled_from([Level.FULL, Level.FILES])),
    st.tuples(st.just("later"), st.sampled_from([1, 700])),
    st.tuples(st.just("log"), st.booleans()),
    st.tuples(st.just("policy"), st.sampled_from(["", 'forbid (principal, action == Action::"files.delete", resource);', "broken("])),
    st.tuples(st.just("revoke"), st.booleans()),
)  # fmt: skip


class World:
    """One gate, driven by events."""

    def __init__(self, folder: Path) -> None:
        self.database = migrated(folder / "cohort.db")
        self.file = folder / "policy.cedar"
        self.file.write_text("")
        self.gates = GateHouse(self.database, ManualClock(), folder, policy=self.file, settings=GateSettings())
        self.hashes: dict[int, str] = {}
        self.answered: list[Any] = []

    def apply(self, event: tuple[str, Any]) -> None:
        name, value = event
        getattr(self, f"on_{name}")(value)

    def on_ask(self, request: tuple[str, dict[str, Any]]) -> None:
        before = len(self.gates.ran)
        try:
            result = self.gates.ask(request[0], **request[1])
        except CohortError as error:
            if error.code not in ("AUDIT_UNAVAILABLE", "SESSION_REVOKED", "TOKEN_EXPIRED"):
                raise
            assert len(self.gates.ran) == before
            return
        ran = len(self.gates.ran) - before
        assert ran == (1 if result.outcome in (Outcome.DONE, Outcome.UNKNOWN) else 0)
        if ran:
            self.check(result.action_id)

    def check(self, action_id: str) -> None:
        """The intent of what just ran, recomputed."""
        gates, cleared = self.gates, self.gates.ran[-1]
        caller = gates.identities.callers[TOKEN]
        (intent,) = [entry for entry in gates.log.of(cleared.action.id) if entry.body["kind"] == "intent"]
        body = intent.body["body"]
        assert action_id == cleared.action.id
        assert (body["digest"], body["token"], body["answer"]) == (cleared.action.digest, caller.token, "allow")
        assert body["policy_hash"] == gates.policies.current().hash
        resources = cleared.facts.resources
        assert all(permits(parse_scopes(body["scopes"]), cleared.facts.row.scope, resource) for resource in resources)
        assert all(".." not in resource for resource in resources)
        assert cleared.facts.row.read_only or all(".git/hooks" not in resource for resource in resources)
        assert not cleared.facts.row.executes or body["level"] >= Level.NAMESPACES
        if body["asked"]:
            approval = gates.approvals.find(body["grant"])
            assert (approval.state, approval.digest, approval.policy_hash) == (ApprovalState.CONSUMED, body["digest"], body["policy_hash"])
            assert approval.approvers == ("anna",)

    def on_answer(self, yes: bool) -> None:
        for approval in self.gates.approvals.list(ApprovalState.PENDING):
            try:
                (self.gates.approvals.approve if yes else self.gates.approvals.deny)(approval.id, Sign("anna"))
            except CohortError as error:
                if error.code != "AUDIT_UNAVAILABLE":
                    raise

    def on_scopes(self, scopes: tuple[str, ...]) -> None:
        self.gates.change_caller(scopes=parse_scopes(scopes))

    def on_autonomy(self, autonomy: Autonomy) -> None:
        scopes = [str(scope) for scope in self.gates.identities.callers[TOKEN].scopes]
        self.gates.as_agent(scopes, autonomy=autonomy)

    def on_level(self, level: Level) -> None:
        self.gates.level = level

    def on_later(self, seconds: int) -> None:
        self.gates.clock.advance(seconds)

    def on_log(self, fails: bool) -> None:
        self.gates.log.failing = lambda _record: CohortError("AUDIT_UNAVAILABLE", "full") if fails else None

    def on_policy(self, text: str) -> None:
        self.file.write_text(text)
        try:
            self.gates.policies.reload()
        except CohortError as error:
            if error.code != "POLICY_INVALID":
                raise

    def on_revoke(self, revoked: bool) -> None:
        session = AgentSessionId("se_" + "s" * 16)
        (self.gates.identities.revoked.add if revoked else self.gates.identities.revoked.discard)(session)

    def check_all(self) -> None:
        """Every approval was used once, every execution has its one intent, and marks were never taken away."""
        intents = [entry.body for entry in self.gates.log.entries if entry.body["kind"] == "intent"]
        grants = [intent["body"]["grant"] for intent in intents if intent["body"]["grant"]]
        assert len(grants) == len(set(grants))
        assert [intent["action"] for intent in intents] == [cleared.action.id for cleared in self.gates.ran]
        read = any(cleared.facts.row.private for cleared in self.gates.ran)
        assert (
            self.gates.identities.taint(AgentSessionId("se_" + "s" * 16)).private or not read
        )  # marked before it runs, so perhaps in vain


@settings(max_examples=60)
@given(st.lists(events, min_size=5, max_size=25))
def test_executed_means_allowed_recorded_and_granted(happened: list[tuple[str, Any]]) -> None:
    folder = Path(tempfile.mkdtemp())
    world = World(folder)
    try:
        for event in happened:
            world.apply(event)
        world.check_all()
    finally:
        world.database.close()
        shutil.rmtree(folder)
