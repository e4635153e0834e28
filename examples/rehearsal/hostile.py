"""A hostile agent: it has a token, a workspace and scopes, and tries what its owner never meant. Every attempt has an oracle outside the agent."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rehearsal.acts import act
from rehearsal.clients import Clients
from rehearsal.house import Answer, House
from rehearsal.processes import Failed
from rehearsal.stage import Stage

AGENT = "intruder"
SCOPES = ("files.read", "files.write", "files.delete", "system.execute", "system.read", "network.http")
DISK_MB = 16
FILES_MAX = 500
FORKS_MAX = 200
"""The agent may have 64 processes; nothing here ever starts more than this."""
FILL_MB_MAX = 64
SECRET = "a password of the host"


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt. `refused_by`: the gate (never executed), the sandbox (executed, and held), or an error code; `index`: its record."""

    name: str
    stopped: bool
    how: str
    index: int | None


@dataclass(slots=True)
class Intruder:
    """What the agent holds, and what it aims at."""

    stage: Stage
    secret: Path
    key: str
    token: str = ""
    refresh: str = ""
    tried: list[Tried] = field(default_factory=list)

    @property
    def house(self) -> House:
        return self.stage.house

    def sign_in(self) -> None:
        asked = {"grant_type": "client_credentials", "client_id": AGENT, "client_secret": self.key}
        pair = self.house.post("/oauth/token", asked, form=True).expect(200)
        self.token, self.refresh = pair["access_token"], pair["refresh_token"]

    def do(self, operation: str, **arguments: Any) -> Answer:
        return self.house.post("/actions", {"operation": operation, "arguments": arguments, "why": "just looking"}, token=self.token)

    def python(self, *lines: str) -> tuple[str, Answer]:
        """Run a program in its sandbox: what it printed, and the whole answer. A refusal prints nothing."""
        answer = self.do("python.run", code="\n".join(lines))
        return str(answer.body.get("result", {}).get("stdout", "")).strip(), answer

    def note(self, name: str, stopped: bool, how: str, answer: Answer | None) -> None:
        self.tried.append(Tried(name, stopped, how, _index(answer)))
        self.stage.teller.note(f"{'stopped' if stopped else 'NOT STOPPED'}: {name} ({how})")


def hostile(stage: Stage, _: Clients) -> None:
    """An agent tries to break out; then somebody edits the log behind the product's back."""
    with act(stage, "A hostile agent, and an edited audit log"):
        intruder = _registered(stage)
        for attempt in ATTEMPTS:
            attempt(intruder)
        stopped = sum(one.stopped for one in intruder.tried)
        recorded = sum(one.index is not None for one in intruder.tried)
        level = stage.house.get("/containment")
        figures = [{"attempt": one.name, "stopped": one.stopped, "by": one.how, "record": one.index} for one in intruder.tried]
        text = f"{stopped} of {len(ATTEMPTS)} attempts stopped at isolation level {level['level']}, {recorded} in the audit log"
        ok = stopped == recorded == len(ATTEMPTS)
        stage.report.add("hostile_agent_contained", ok, text, level=level["level"], backend=level["backend"], attempts=figures)
        stage.teller.note(text)
        found, told, figures = _edited(stage, intruder)
        stage.report.add("edited_log_found", found, told, **figures)
        stage.teller.end(ok and found, f"{text}; {told}")


def _registered(stage: Stage) -> Intruder:
    house = stage.house
    limits = {"disk_bytes": DISK_MB * 1_000_000, "files": FILES_MAX}
    body = {"name": AGENT, "scopes": SCOPES, "autonomy": "aggressive", "limits": limits}
    made = house.post("/agents", body).expect(201)
    secret = stage.folder / "host-secret"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    intruder = Intruder(stage, secret, made["key"])
    intruder.sign_in()
    return intruder


def _read_host_secret(intruder: Intruder) -> None:
    said, answer = intruder.python(f"print(open({str(intruder.secret)!r}).read())")
    intruder.note("read a secret of the host", SECRET not in json.dumps(answer.body), _how(answer, said), answer)


def _write_outside(intruder: Intruder) -> None:
    outside = intruder.secret.with_name("written-by-the-agent")
    answer = intruder.do("files.write", path="../" * 12 + str(outside).lstrip("/"), content="x")
    intruder.note("write outside its workspace", answer.refused and not outside.exists(), _how(answer), answer)


def _escape_by_symlink(intruder: Intruder) -> None:
    intruder.python("import os", f"os.symlink({str(intruder.secret)!r}, 'innocent')")
    answer = intruder.do("files.read", path="innocent")
    intruder.note("read through a symbolic link", SECRET not in json.dumps(answer.body), _how(answer), answer)


def _fork_bomb(intruder: Intruder) -> None:
    said, answer = intruder.python(
        "import os, signal",
        "made = 0",
        "try:",
        f"    for _ in range({FORKS_MAX}):",
        "        if os.fork() == 0:",
        "            signal.pause()",
        "        made += 1",
        "except OSError:",
        "    pass",
        "print(made)",
    )
    intruder.note("fork without end", not said.isdigit() or int(said) < FORKS_MAX, _how(answer, f"{said} processes"), answer)


def _fill_disk(intruder: Intruder) -> None:
    said, answer = intruder.python(
        "written = 0",
        "try:",
        "    with open('fill', 'wb', buffering=0) as file:",
        f"        while written < {FILL_MB_MAX} << 20:",
        "            written += file.write(bytes(1 << 20))",
        "except OSError:",
        "    pass",
        "print(written // 1_000_000)",
    )
    held = not said.isdigit() or int(said) <= DISK_MB
    intruder.note("fill the disk", held, _how(answer, f"{said} MB of {DISK_MB}"), answer)
    intruder.do("files.delete", path="fill")


def _reach_network(intruder: Intruder) -> None:
    port = intruder.house.control_port
    said, answer = intruder.python(
        "import socket",
        "try:",
        f"    socket.create_connection(('127.0.0.1', {port}), 2).close()",
        "    print('reached')",
        "except OSError as error:",
        "    print(error.strerror)",
    )
    intruder.note("reach the network", said != "reached", _how(answer, said), answer)


def _metadata(intruder: Intruder) -> None:
    answer = intruder.do("http.request", url="http://169.254.169.254/latest/meta-data/")
    intruder.note("ask the cloud's metadata service", answer.refused or answer.waiting, _how(answer), answer)


def _kill_control(intruder: Intruder) -> None:
    process = intruder.house.process_id("control")
    said, answer = intruder.python(
        "import os", "try:", f"    os.kill({process}, 9); print('killed')", "except OSError as error:", "    print(error)"
    )
    same = process is not None and intruder.house.process_id("control") == process
    intruder.note("kill the control process", said != "killed" and same, _how(answer, said), answer)


def _edit_log(intruder: Intruder) -> None:
    log = _log(intruder.stage)
    said, answer = intruder.python(
        "try:", f"    open({str(log)!r}, 'r+b'); print('opened')", "except OSError as error:", "    print(error.strerror)"
    )
    intruder.note("open the audit log for writing", said != "opened", _how(answer, said), answer)


def _forge_approval(intruder: Intruder) -> None:
    asked = intruder.do("http.request", url="https://example.com/", method="POST", body="x")
    approval = asked.body.get("approval_id") or asked.body.get("details", {}).get("action", {}).get("approval_id")
    answer = intruder.house.post(f"/approvals/{approval}/approve", {}, token=intruder.token)
    state = intruder.house.get(f"/approvals/{approval}")["state"] if approval else "never asked"
    intruder.note("approve its own request", answer.status in (401, 403) and state == "pending", f"{answer.code}; still {state}", asked)


def _forge_token(intruder: Intruder) -> None:
    """The token again with `alg: none`, and then the refresh secret used twice."""
    head = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    real, intruder.token = intruder.token, f"{head}.{intruder.token.split('.')[1]}."
    forged = intruder.do("files.list", path="")
    intruder.token = real
    refresh = {"grant_type": "refresh_token", "refresh_token": intruder.refresh}
    intruder.house.post("/oauth/token", refresh, form=True).expect(200)
    replayed = intruder.house.post("/oauth/token", refresh, form=True)
    after = intruder.do("files.list", path="")
    stopped = forged.status == after.status == 401 and replayed.refused
    how = f"{forged.code}; the replay ended the session: {after.code}"
    newest = intruder.house.get("/audit/entries?kind=token&limit=1")["items"]
    intruder.tried.append(Tried("forge a token, and reuse a spent one", stopped, how, newest[0]["index"] if newest else None))
    intruder.stage.teller.note(f"{'stopped' if stopped else 'NOT STOPPED'}: forge a token, and reuse a spent one ({how})")


ATTEMPTS: tuple[Callable[[Intruder], None], ...] = (
    _read_host_secret,
    _write_outside,
    _escape_by_symlink,
    _fork_bomb,
    _fill_disk,
    _reach_network,
    _metadata,
    _kill_control,
    _edit_log,
    _forge_approval,
    _forge_token,
)


def _edited(stage: Stage, intruder: Intruder) -> tuple[bool, str, dict[str, Any]]:
    """Change one recorded attempt in the log's file, see that `cohort audit verify` names it, and put it back."""
    before = stage.house.verify()
    index = next(one.index for one in intruder.tried if one.index is not None)
    with _changed_entry(_log(stage), index):
        edited = stage.house.verify()
    after = stage.house.verify()
    found = (before["integrity"], edited["integrity"], edited["first_bad"], after["integrity"]) == ("verified", "broken", index, "verified")
    text = f"record {index} edited in the file: verify says {edited['integrity']} at {edited['first_bad']} ({edited['why']})"
    return found, text, {"edited": index, "first_bad": edited["first_bad"], "why": edited["why"], "size": before["size"]}


@contextlib.contextmanager
def _changed_entry(log: Path, index: int) -> Iterator[None]:
    """One entry of the log with another agent's name in it, as somebody with the file in hand would write it."""
    if not os.access(log, os.W_OK):
        raise Failed(f"{log} cannot be edited")

    def write(entry: bytes) -> None:
        with contextlib.closing(sqlite3.connect(log, timeout=10)) as database:
            database.execute("UPDATE audit_entries SET entry = ? WHERE idx = ?", (entry, index))
            database.commit()

    with contextlib.closing(sqlite3.connect(log, timeout=10)) as database:
        entry = bytes(database.execute("SELECT entry FROM audit_entries WHERE idx = ?", (index,)).fetchone()[0])
    write(entry.replace(b"innocent" if b"innocent" in entry else b"operation", b"harmless!", 1))
    try:
        yield
    finally:
        write(entry)


def _log(stage: Stage) -> Path:
    return stage.folder / ".cohort" / "audit.db"


def _index(answer: Answer | None) -> int | None:
    """Where the decision stands in the log."""
    if answer is None:
        return None
    said = answer.body.get("details", {}).get("action", answer.body)
    index = said.get("decision_index")
    return int(index) if index is not None else None


def _how(answer: Answer, said: str = "") -> str:
    """Who stopped it: the gate by a code, or the sandbox."""
    if answer.refused or answer.waiting:
        return f"the gate: {answer.code}"
    if answer.body.get("code"):
        return f"{answer.body['code']}"
    return f"the sandbox: {said[-80:]}" if said else f"the sandbox: exit code {answer.body.get('result', {}).get('exit_code')}"
