"""The kernel of the control process, put together: every room is handed the others, the clock and entropy here and nowhere below."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.base.ids import ActionId, AgentId, AgentSessionId, Entropy, KeyId, WorkspaceId
from cohort.base.settings import resolve_reference
from cohort.base.settings_kernel import WebhookSettings
from cohort.compose.contained import Contained, Hooks, storage
from cohort.compose.egress import Egress
from cohort.compose.health import Health
from cohort.compose.leftovers import forget
from cohort.kernel.actions.clearance import Executor
from cohort.kernel.actions.delegating import GatedTokens
from cohort.kernel.actions.executions import Executions
from cohort.kernel.actions.executors.commands import Commands
from cohort.kernel.actions.executors.files import FileExecutors
from cohort.kernel.actions.executors.http import Requests
from cohort.kernel.actions.executors.machine import delegate, system_read
from cohort.kernel.actions.executors.processes import ProcessExecutors
from cohort.kernel.actions.gate import Gate, GateSettings, Rooms
from cohort.kernel.actions.keys import Keys
from cohort.kernel.actions.policy import Policies
from cohort.kernel.actions.quotas import Quotas
from cohort.kernel.actions.reconciler import Reconciler, ReconcilerThread
from cohort.kernel.approvals.desk_sql import SqlApprovals
from cohort.kernel.approvals.limits import ApprovalLimits
from cohort.kernel.approvals.webhook import ApprovalWebhook
from cohort.kernel.audit.room import CHECKPOINT_PAGES, AuditRoom, open_audit
from cohort.kernel.face import AuditQuery, Containment, Entry, KernelFace
from cohort.kernel.identity import IdentityRoom, open_identity
from cohort.kernel.machine.holding import holdings
from cohort.kernel.machine.monitor import Monitor
from cohort.kernel.machine.processes import AgentProcesses
from cohort.kernel.machine.resources import Resources, capacity
from cohort.kernel.model import Agent, AgentState, Level, Limits, Record, RecordKind
from cohort.kernel.ports import AUDIENCE
from cohort.kernel.sandbox.egress import hosts_of, resolve_public
from cohort.kernel.workspaces.backend import Size
from cohort.kernel.workspaces.beneath import best_opener
from cohort.kernel.workspaces.desk import Desk
from cohort.kernel.workspaces.files import Files
from cohort.kernel.workspaces.pool import Pool
from cohort.kernel.workspaces.search import Search
from cohort.kernel.workspaces.snapshots import Snapshots
from cohort.kernel.workspaces.workspaces import SqlWorkspaces
from cohort.storage.database import Database, open_database
from cohort.storage.schema import agent_sessions, agents

SPARES = 2
"""Workspaces made ahead, so that a registration does not wait for a file system."""
SWEEP_S = 2.0
COLLECT_S = 3600.0
OVERCOMMIT = 16.0
"""How many times over cores and memory are promised to agents, which are seldom busy at the same time."""
ENTRIES_OF_AN_ACTION_MAX = 100
STOP_S = 10.0
VERIFY_NEW_S = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Ground:
    """What everything else stands on. `own_log`: the audit log's database where it has one to itself. `told`: the configuration's `kernel`."""

    told: Mapping[str, Any]
    installation: str
    data_dir: Path
    database: Database
    own_log: Database | None
    clock: Clock
    entropy: Entropy
    audit: AuditRoom
    executions: Executions

    def entries(self, action: ActionId) -> Sequence[Entry]:
        """An action's records, oldest first."""
        return self.audit.desk.search(AuditQuery(action=action, limit=ENTRIES_OF_AN_ACTION_MAX))[::-1]

    def close(self) -> None:
        self.executions.close()
        self.audit.stop()
        if self.own_log is not None:
            self.own_log.close()


@dataclass(frozen=True, slots=True)
class _Machine:
    """Where agents' files are and where their commands run."""

    contained: Contained
    egress: Egress
    workspaces: SqlWorkspaces
    desk: Desk
    files: Files
    processes: AgentProcesses
    resources: Resources
    monitor: Monitor

    def create(self, agent: AgentId, limits: Limits) -> WorkspaceId:
        """What identity asks when an agent is registered: its share of the machine, then its workspace."""
        self.resources.reserve(agent, limits)
        try:
            return self.workspaces.create(agent, limits)
        except CohortError:
            self.resources.release(agent)
            raise

    def end(self, agent: Agent) -> None:
        """What still runs for an agent that was suspended or revoked; a process that this misses ends with the next sweep."""
        try:
            self.processes.stop_all(agent.id)
            if agent.workspace is not None:
                self.contained.close(self.workspaces.place(agent.workspace))
        except CohortError as error:
            _log.warning("what runs for %s could not be ended at once: %s", agent.name, error)

    def give_back(self, known: Sequence[Agent]) -> None:
        """What revoked agents were promised is there for others."""
        for agent in known:
            if agent.state is AgentState.REVOKED:
                self.resources.release(agent.id)

    def owner(self, workspace: str) -> str | None:
        """Whose workspace it is; None when it is nobody's."""
        try:
            return self.workspaces.owner(WorkspaceId(workspace))
        except CohortError as error:
            if error.code != "WORKSPACE_UNKNOWN":
                raise
            return None

    def start(self, known: Sequence[Agent]) -> None:
        self.workspaces.start()
        self.desk.start()
        self.processes.recover()
        self.resources.load(known)
        self.monitor.start()

    def stop(self) -> None:
        self.processes.close()
        self.contained.stop()
        self.monitor.stop()
        self.workspaces.stop()


@dataclass(frozen=True, slots=True)
class _People:
    """Who asks, and who answers."""

    identity: IdentityRoom
    approvals: SqlApprovals
    webhook: ApprovalWebhook | None


@dataclass(frozen=True, slots=True)
class _Door:
    """The action gate, what it reserves and sends with, and what compares its doings with the log."""

    gate: Gate
    quotas: Quotas
    requests: Requests
    reconciler: Reconciler
    comparing: ReconcilerThread

    def stop(self) -> None:
        self.requests.close()
        self.gate.close()
        self.quotas.close()
        self.comparing.stop()


class Kernel:
    """The kernel without its surfaces. `start` before anything is asked of `face`; `stop` ends what agents run and closes what was opened."""

    def __init__(self, ground: _Ground, machine: _Machine, people: _People, door: _Door) -> None:
        self._ground = ground
        self._machine = machine
        self._people = people
        self._door = door
        self._stopping = threading.Event()
        self._verified = "not verified yet"
        self._rounds: list[threading.Thread] = []
        webhook = people.webhook
        self.face = KernelFace(
            agents=people.identity.agents,
            tokens=GatedTokens(people.identity.tokens, door.gate),
            actions=door.gate,
            approvals=people.approvals,
            audit=ground.audit.desk,
            workspaces=machine.desk,
            containment=machine.contained.found,
            safety=door.reconciler.counts,
            reply=webhook.reply if webhook is not None else None,
            limits=lambda agent: holdings(people.identity.agents.find(agent).limits, machine.contained.mechanisms()),
            reload_policy=door.gate.reload_policy,
        )

    def register(self, operation: str, executor: Executor) -> None:
        """Let a room above execute an operation of the table. Errors: OPERATION_UNKNOWN."""
        self._door.gate.register(operation, executor)

    def start(self) -> None:
        """Recover what a former life left, then look after it all in threads. Beside them runs the probe, for whose end commands wait, and
        a verification of the whole audit log, for which nothing waits."""
        closed = self._ground.audit.start()
        if closed:
            _log.warning("%d actions were under way when control ended; their outcome is recorded as unknown", closed)
        self._machine.start(self._people.identity.agents.list())
        if self._people.webhook is not None:
            self._people.webhook.start()
        self._note_policy()
        self._door.comparing.start()
        for name, work in (
            ("containment probe", self._probe),
            ("approvals", self._sweep),
            ("snapshots", self._collect),
            ("audit verification", self._verify),
        ):
            self._rounds.append(threading.Thread(target=work, name=name, daemon=True))
            self._rounds[-1].start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._rounds:
            thread.join(STOP_S)
        if self._people.webhook is not None:
            self._people.webhook.stop()
        self._machine.stop()
        forget(self._ground.installation)
        self._door.stop()
        self._ground.close()

    def record_key(self, body: Mapping[str, Any]) -> None:
        """Into the audit log: what is done with people's keys, who may approve among them. Errors: AUDIT_UNAVAILABLE."""
        self._ground.audit.log.append(Record(RecordKind.KEY, body))

    def end_minted(self, connection: Connection, key: KeyId) -> None:
        """Within the transaction that revokes a person's key: end the sessions of agents that were begun by hand with it."""
        self._people.identity.agents.end_minted(connection, key)

    def note(self, body: Mapping[str, Any]) -> None:
        """Into the audit log: what a person does that is no action of an agent. Errors: AUDIT_UNAVAILABLE."""
        self._ground.audit.log.append(Record(RecordKind.NOTE, body))

    def health(self) -> list[Health]:
        """The audit log and the policy, without which no action runs, and what contains agents, without which no command does."""
        found = self._machine.contained.found()
        said = f"level {found.level.value}, by {found.backend}" if found else self._machine.contained.trouble
        return [self._log_health(), Health("containment", True, said), Health("policy", True, self._door.gate.policy_in_words())]

    def _log_health(self) -> Health:
        """Also while the database is away: how the others are is still told."""
        trouble = self._ground.audit.log.trouble
        if trouble is not None:
            return Health("audit log", False, trouble.message)
        try:
            return Health("audit log", True, f"{self.face.audit.size()} records, {self._verified}")
        except CohortError as error:
            return Health("audit log", False, error.message)

    def _note_policy(self) -> None:
        try:
            self._door.gate.note_policy("control")
        except CohortError as error:
            _log.error("the policy in force could not be recorded: %s", error)

    def _probe(self) -> None:
        found = self._machine.contained.choose()
        try:
            self._ground.audit.log.append(Record(RecordKind.LEVEL, _level_body(found, self._machine.contained.trouble)))
        except CohortError as error:
            _log.error("the isolation level could not be recorded: %s", error)

    def _verify(self) -> None:
        """An entry that was edited while control was away: opening the log compares hashes, only this reads what they are of."""
        try:
            found = self.face.audit.verify(full=True, progress=self._unless_stopping)
        except CohortError as error:
            self._verified = f"not verified since the start: {error.message}"
            _log.warning("the audit log was not verified: %s", error)
        except Exception:  # the supervisor of this thread: the log stays as it was opened, and anyone may verify it again
            self._verified = "not verified since the start: it failed, see control's log"
            _log.exception("verifying the audit log failed")
        else:
            self._verified = f"{found.integrity} at the start"
            if found.integrity == "broken":
                _log.error("the audit log is broken: %s; no action of an agent runs", found.why)
        while not self._stopping.wait(VERIFY_NEW_S):
            self._verify_new()

    def _verify_new(self) -> None:
        """What came since the last time, so that the next start has little to read before actions run."""
        try:
            found = self.face.audit.verify(full=False)
        except CohortError as error:
            _log.warning("the newest records of the audit log were not verified: %s", error)
            return
        except Exception:  # the supervisor of this thread: the next round tries again
            _log.exception("verifying the newest records of the audit log failed")
            return
        if found.integrity == "broken":
            _log.error("the audit log is broken: %s; no action of an agent runs", found.why)

    def _unless_stopping(self, done: int, count: int) -> None:
        if self._stopping.is_set():
            raise CohortError("AUDIT_UNAVAILABLE", f"control ended after {done} of {count} records", retry=Retry.SAFE)

    def _collect(self) -> None:
        """At the start, since a former life may have been cut short, and from time to time."""
        while True:
            try:
                self._machine.desk.collect()
            except CohortError as error:
                _log.warning("content that no snapshot needs could not be taken away: %s", error)
            except Exception:  # the supervisor of this thread: the next round tries again
                _log.exception("taking away what no snapshot needs failed")
            if self._stopping.wait(COLLECT_S):
                return

    def _sweep(self) -> None:
        while not self._stopping.wait(SWEEP_S):
            try:
                self._people.approvals.sweep()
                self._machine.give_back(self._people.identity.agents.list())
            except CohortError as error:
                _log.warning("approvals past their time could not be ended: %s", error)
            except Exception:  # the supervisor of this thread: the next round tries again
                _log.exception("ending approvals past their time failed")


def _level_body(found: Containment | None, trouble: str) -> dict[str, Any]:
    if found is None:
        return {"level": Level.NONE.value, "backend": "none", "trouble": trouble}
    through = [row.name for row in found.rows if row.stopped is False]
    untried = [row.name for row in found.rows if row.stopped is None]
    return {
        "level": found.level.value,
        "backend": found.backend,
        "kernel": found.kernel,
        "landlock_abi": found.landlock,
        "got_through": through,
        "not_tried": untried,
        "soft": list(found.soft),
    }


@dataclass(frozen=True, slots=True)
class _Over:
    """Whether whoever started a process may still have it run."""

    database: Database
    clock: Clock

    def __call__(self, agent: AgentId, session: AgentSessionId | None) -> bool:
        with self.database.read() as connection:
            state = connection.execute(select(agents.c.state).where(agents.c.id == agent)).scalar()
            if state != AgentState.ACTIVE:
                return True
            if session is None:
                return False
            found = select(agent_sessions.c.revoked_us, agent_sessions.c.expires_us).where(agent_sessions.c.id == session)
            row = connection.execute(found).first()
        return row is None or row.revoked_us is not None or row.expires_us <= self.clock.now_us()


def build_kernel(
    config: Mapping[str, Any], database: Database, clock: Clock, environ: Mapping[str, str], entropy: Entropy = secrets.token_bytes
) -> Kernel:
    """From control's configuration (`ops.configurations.control_config`) and its migrated database. Starts no thread but the log's.

    Raises:
        CohortError CONFIG_INVALID, DATABASE_UNAVAILABLE, WORKSPACE_UNAVAILABLE, DISK_FULL: nothing was started.
    """
    ground = _ground(config, database, clock, entropy)
    machine = _machine(ground)
    people = _people(ground, machine, environ)
    return Kernel(ground, machine, people, _door(ground, machine, people))


def _ground(config: Mapping[str, Any], database: Database, clock: Clock, entropy: Entropy) -> _Ground:
    told: Mapping[str, Any] = config["kernel"]
    installation, data_dir = str(config["installation"]), Path(str(config["data_dir"]))
    own_log = open_database(str(told["audit_url"]), checkpoint_pages=CHECKPOINT_PAGES) if told["audit_url"] else None
    if own_log is not None:
        own_log.migrate()
    origin = f"{told['trust_domain']}/audit/{installation}"
    key_file, anchors = Path(told["audit_key_file"]), tuple(told["anchors"])
    audit = open_audit(own_log or database, clock, entropy, key_file=key_file, origin=origin, anchors=anchors)
    executions = Executions(Path(told["executions"]), clock)
    return _Ground(told, installation, data_dir, database, own_log, clock, entropy, audit, executions)


def _machine(ground: _Ground) -> _Machine:
    told, clock, entropy, database = ground.told, ground.clock, ground.entropy, ground.database
    root, opener = Path(told["workspace_root"]), best_opener()
    backend = storage(root, ground.installation, clock, opener)
    egress = Egress(ground.executions, ground.audit.log)
    hooks = Hooks(ground.executions.spawned, egress.decided, egress.fund)
    contained = Contained(backend, ground.data_dir, hooks, clock, entropy, ground.installation, _private(told))
    usual = Size.of(Limits(disk_bytes=int(told["max_disk_mb"]) * 1_000_000, files=int(told["max_files"])))
    workspaces = SqlWorkspaces(
        database,
        clock,
        ground.audit.log,
        backend,
        opener=opener,
        busy=contained.busy,
        close=contained.close,
        pool=Pool(backend, usual, SPARES, entropy),
        private_uids=contained.private_uids,
        entropy=entropy,
    )
    return _Machine(
        contained,
        egress,
        workspaces,
        Desk(workspaces, Snapshots(database, clock, opener, entropy)),
        Files(workspaces, opener),
        AgentProcesses(contained, database, clock, entropy, ground.installation, _Over(database, clock)),
        Resources(capacity(root), OVERCOMMIT),
        Monitor(clock, disks=(ground.data_dir, root)),
    )


def _people(ground: _Ground, machine: _Machine, environ: Mapping[str, str]) -> _People:
    told, log = ground.told, ground.audit.log
    keys, domain, life_s = Path(told["token_keys"]), str(told["trust_domain"]), int(told["identity_token_expiration_s"])
    identity = open_identity(ground.database, ground.clock, ground.entropy, log, keys, domain, life_s, machine, machine.end)
    needed = ApprovalLimits(approvers_needed=int(told["approvers_needed"]))
    approvals = SqlApprovals(ground.database, log, ground.clock, ground.entropy, needed)
    if told["approval_webhook"] is None:
        return _People(identity, approvals, None)
    settings = WebhookSettings(**told["approval_webhook"])
    webhook = ApprovalWebhook(settings, resolve_reference(settings.secret, environ), approvals, ground.clock)
    approvals.listen(webhook.notify)
    return _People(identity, approvals, webhook)


def _door(ground: _Ground, machine: _Machine, people: _People) -> _Door:
    told = ground.told
    least, asks = Level(int(told["isolation_min"])), bool(told["require_user_approval"])
    policy_file = Path(told["policy_file"]) if told["policy_file"] else None
    quotas, requests = (
        Quotas(ground.database, ground.clock, machine.processes.running),
        Requests(partial(resolve_public, private=_private(told))),
    )
    machine.processes.charge_to(quotas.charge)
    machine.egress.pay_from(quotas, machine.owner)
    rooms = Rooms(
        audit=ground.audit.log,
        entries=ground.entries,
        identities=people.identity.identities,
        approvals=people.approvals,
        workspaces=machine.workspaces,
        policies=Policies(policy_file, {"isolation_min": least.value, "require_user_approval": asks}),
        quotas=quotas,
        keys=Keys(ground.database, ground.clock),
        level=lambda: machine.contained.level,
    )
    settings = GateSettings(AUDIENCE, least, asks, egress_private=_private(told))
    gate = Gate(rooms, settings, _executors(ground, machine, people, requests), ground.clock, ground.entropy)
    reconciler = Reconciler(ground.executions, ground.entries, machine.owner, ground.clock)
    return _Door(gate, quotas, requests, reconciler, ReconcilerThread(reconciler))


def _executors(ground: _Ground, machine: _Machine, people: _People, requests: Requests) -> dict[str, Executor]:
    """What spawns is journalled by the sandbox; everything else here."""
    processes = dict(ProcessExecutors(machine.workspaces, machine.processes, hosts_of).executors())
    spawning = {
        **Commands(machine.workspaces, machine.contained, hosts_of).executors(),
        "process.start": processes.pop("process.start"),
    }
    on_host = {
        **FileExecutors(machine.workspaces, machine.files, Search(best_opener(), ground.clock)).executors(),
        **requests.executors(),
        **processes,
        "system.read": system_read(machine.monitor),
        "agent.delegate": delegate(people.identity.tokens),
    }
    return {**ground.executions.observed(on_host), **spawning}


def _private(told: Mapping[str, Any]) -> tuple[str, ...]:
    """`host:port` that agents may be granted though they are not on the public internet."""
    return tuple(told.get("egress_private", ()))
