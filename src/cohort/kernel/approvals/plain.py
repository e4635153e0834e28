"""An action in plain words, and what it will touch: what a person reads before answering. Written from the canonical action only.

Nothing an agent wrote reaches a person's screen as it is: characters that do not show, or that reorder what is shown, are written out as
`<U+202E>`, and text is cut at a limit that is said. The agent's own reason is shown apart, through `shown`.
"""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cohort.base import redaction
from cohort.base.canonical import canonical_json, sha256_hex
from cohort.kernel.model import Action, Approval

SHOWN_CHARS_MAX = 600
"""Of one quoted part."""
TEXT_CHARS_MAX = 2000
TOUCHES_MAX = 20
MARKS_MAX = 2
"""Combining marks on one letter; a tower of them covers the lines around it."""
NAMES_MAX = 5
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_MARKS = {"Mn", "Me"}
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and signs that are drawn as nothing."""


@dataclass(frozen=True, slots=True)
class Plain:
    """`text`: one sentence without its full stop. `touches`: what is read, changed or reached, one item each."""

    text: str
    touches: tuple[str, ...]


def describe(action: Action, agent: str, own: str | None = None) -> Plain:
    """`action` of the agent called `agent`, whose own workspace is `own`, for approvers. Never fails, whatever the arguments hold."""
    write = _WORDS.get(action.operation, _other)
    text, touches = write(_Facts(action, quoted(agent), own))
    more = (*touches, *_warnings(action))
    return Plain(shown(text, TEXT_CHARS_MAX), tuple(shown(each, TEXT_CHARS_MAX) for each in more[:TOUCHES_MAX]))


def without_credentials(approval: Approval) -> Approval:
    """As it is written down once nobody answers or uses it any more, and in the audit log from the beginning; its digest stays that of the
    exact action."""
    arguments = redaction.values(approval.action.arguments)
    action = replace(approval.action, arguments=arguments)
    said = Plain(approval.plain, approval.touches)
    if arguments != approval.action.arguments and not action.operation.startswith("files."):
        said = describe(action, approval.asked_by)
    return replace(approval, action=action, plain=said.text, touches=said.touches, why=redaction.text(approval.why))


def shown(text: str, most: int) -> str:
    """`text` on one line, with every character visible and in the order written, cut at `most` characters. Shown text stays as it is."""
    room = text[:most]
    written = "".join(_visible(room))
    if len(text) <= most and len(written) <= most:
        return written
    end = f" [cut; {len(text)} characters in all]"
    return written[: max(0, most - len(end))] + end


def quoted(text: str) -> str:
    """`text` between backticks, as a part of a sentence; it cannot end the quotation itself."""
    return f"`{shown(text, SHOWN_CHARS_MAX).replace('`', '<U+0060>')}`"


def _visible(text: str) -> list[str]:
    out: list[str] = []
    marks = 0
    for character in text:
        kind = unicodedata.category(character)
        marks = marks + 1 if kind in _MARKS else 0
        strange = kind in _HIDDEN or (kind == "Zs" and character != " ") or character in _BLANK or marks > MARKS_MAX
        out.append(f"<U+{ord(character):04X}>" if strange else character)
    return out


@dataclass(frozen=True, slots=True)
class _Facts:
    """One action, as the sentences need it. `agent` is quoted already."""

    action: Action
    agent: str
    own: str | None

    @property
    def path(self) -> str:
        """The path within the workspace, quoted; the root as such."""
        inside = self.action.resource.partition("/")[2]
        return quoted(inside) if inside else "the whole folder"

    @property
    def workspace(self) -> str:
        """Where files are: the agent's own place, unless the resource says another."""
        place, slash, _ = self.action.resource.partition("/")
        if slash and self.action.operation.startswith("files.") and place != self.own:
            return f"workspace {quoted(place)}, which is not agent {self.agent}'s own"
        return f"the workspace of agent {self.agent}"

    def get(self, *names: str) -> Any:
        """The first of these arguments that is there; None when none is."""
        return next((self.action.arguments[name] for name in names if self.action.arguments.get(name) is not None), None)

    def text(self, *names: str) -> str | None:
        found = self.get(*names)
        return found if isinstance(found, str) else None

    def words(self, name: str) -> tuple[str, ...]:
        found = self.get(name)
        return tuple(str(each) for each in found) if isinstance(found, Sequence) and not isinstance(found, str) else ()

    def size(self, *names: str) -> str:
        """How much text an argument holds, in words."""
        found = self.get(*names)
        if found is None:
            return "nothing"
        data = found if isinstance(found, str) else canonical_json(found).decode()
        return f"{len(data.encode(errors='replace'))} bytes, SHA-256 {sha256_hex(data.encode(errors='replace'))[:12]}"


Words = tuple[str, tuple[str, ...]]


def _read(facts: _Facts) -> Words:
    verbs = {"files.list": "List", "files.search": "Search in", "files.stat": "Look at the size and times of", "files.read": "Read"}
    verb = verbs[facts.action.operation]
    looked_for = facts.text("text")
    what = f" for {quoted(looked_for)}" if looked_for is not None and verb == "Search in" else ""
    return f"{verb} {facts.path}{what} in {facts.workspace}", (f"reads {facts.path}",)


def _write(facts: _Facts) -> Words:
    verb, effect = {"append": ("Append to", "grows"), "create": ("Create", "adds")}.get(facts.text("mode") or "", ("Write", "replaces"))
    return f"{verb} {facts.path} in {facts.workspace} ({facts.size('content')})", (f"{effect} {facts.path}",)


def _make_folder(facts: _Facts) -> Words:
    return f"Make the folder {facts.path} in {facts.workspace}", (f"adds {facts.path}",)


def _move(facts: _Facts) -> Words:
    target = quoted(facts.text("to") or "an unnamed place")
    return f"Move {facts.path} to {target} in {facts.workspace}", (f"removes {facts.path}", f"replaces {target} if it is there")


def _delete(facts: _Facts) -> Words:
    everything = " and everything in it" if facts.get("recursive") else ""
    return f"Delete {facts.path}{everything} in {facts.workspace}", (f"deletes {facts.path}{everything}",)


def _run(facts: _Facts) -> Words:
    where = facts.text("cwd")
    place = f"folder {quoted(where)} of {facts.workspace}" if where else facts.workspace
    verb = "Start" if facts.action.operation == "process.start" else "Run"
    how = ", through a shell" if facts.text("shell") else ""
    stays = " and leave it running" if verb == "Start" else ""
    return f"{verb} {_command(facts)} in {place}{how}{stays}", _reach(facts)


def _python(facts: _Facts) -> Words:
    code = facts.text("code")
    if code is None:
        return f"Run Python in {facts.workspace}", _reach(facts)
    lines = code.count("\n") + 1
    begin = quoted(code.strip().partition("\n")[0])
    many = f"a Python program of {lines} lines, which begins with {begin}," if lines > 1 else f"the Python program {begin}"
    return f"Run {many} in {facts.workspace}", (f"the program: {facts.size('code')}", *_reach(facts))


def _process(facts: _Facts) -> Words:
    process = quoted(facts.action.resource)
    if facts.action.operation == "process.signal":
        return f"Send signal {_value(facts.get('signal'))} to process {process} of agent {facts.agent}", (f"process {process}",)
    if facts.action.operation == "process.limit":
        return f"Change the limits of process {process} of agent {facts.agent}", _arguments(facts.action.arguments)
    what = "the output of process " + process if facts.action.operation == "process.output" else "the processes"
    return f"Read {what} of agent {facts.agent}", ()


def _system(facts: _Facts) -> Words:
    return f"Read this machine's {quoted(facts.action.resource)} figures", ()


def _http(facts: _Facts) -> Words:
    method = shown(facts.text("method") or "GET", 16).upper()
    url = facts.text("url") or facts.action.resource
    sent = (f"sends {facts.size('body')} to it",) if facts.get("body") else ()
    origin = quoted(facts.action.resource)
    return f"Send {method} {quoted(url)} for agent {facts.agent}", (f"reaches {origin}", *sent, *_headers(facts))


def _webhook(facts: _Facts) -> Words:
    origin = quoted(facts.action.resource)
    url = quoted(facts.text("url") or facts.action.resource)
    return f"Post to the webhook {url} for agent {facts.agent}", (
        f"reaches {origin}",
        f"sends {facts.size('payload')} to it",
    )


def _browser(facts: _Facts) -> Words:
    url = quoted(facts.text("url") or facts.action.resource)
    verb = {
        "browser.navigate": "Open",
        "browser.read": "Read",
        "browser.act": "Click and type on",
        "browser.download": "Download from",
    }[facts.action.operation]
    return f"{verb} {url} in the browser of agent {facts.agent}", (
        f"reaches {quoted(facts.action.resource)}",
        *_arguments(facts.action.arguments),
    )


def _mobile(facts: _Facts) -> Words:
    device = quoted(facts.text("device") or facts.action.resource)
    return f"Do {_value(facts.get('kind'))} on the device {device} for agent {facts.agent}", _arguments(facts.action.arguments)


def _database(facts: _Facts) -> Words:
    verb = "Change" if facts.action.operation == "database.write" else "Read from"
    statement = facts.text("statement")
    how = f" with {quoted(statement)}" if statement is not None else ""
    return f"{verb} the database {quoted(facts.action.resource)}{how} for agent {facts.agent}", (
        f"database {quoted(facts.action.resource)}",
    )


def _delegate(facts: _Facts) -> Words:
    other = quoted(facts.text("agent") or facts.action.resource)
    return f"Let agent {other} act for agent {facts.agent}", _arguments(facts.action.arguments)


def _change(facts: _Facts) -> Words:
    if facts.action.operation == "release.propose":
        service = quoted(facts.text("service") or facts.action.resource)
        return f"Propose a release of service {service} for agent {facts.agent}", (f"the manifest: {facts.size('manifest')}",)
    key = quoted(facts.text("key") or facts.action.resource)
    return f"Change the setting {key} to {_value(facts.get('value'))} for agent {facts.agent}", (f"setting {key}",)


def _other(facts: _Facts) -> Words:
    operation, resource = quoted(facts.action.operation), quoted(facts.action.resource)
    return f"Do {operation} on {resource} for agent {facts.agent}", _arguments(facts.action.arguments)


_WORDS: Mapping[str, Callable[[_Facts], Words]] = {
    "files.read": _read,
    "files.list": _read,
    "files.search": _read,
    "files.stat": _read,
    "files.write": _write,
    "files.mkdir": _make_folder,
    "files.move": _move,
    "files.delete": _delete,
    "terminal.run": _run,
    "process.start": _run,
    "python.run": _python,
    "process.list": _process,
    "process.output": _process,
    "process.signal": _process,
    "process.limit": _process,
    "system.read": _system,
    "http.request": _http,
    "network.webhook": _webhook,
    "browser.navigate": _browser,
    "browser.read": _browser,
    "browser.act": _browser,
    "browser.download": _browser,
    "mobile.act": _mobile,
    "database.read": _database,
    "database.write": _database,
    "agent.delegate": _delegate,
    "release.propose": _change,
    "config.change": _change,
}


def _command(facts: _Facts) -> str:
    argv = facts.words("argv")
    return quoted(facts.text("shell") or (shlex.join(argv) if argv else facts.action.resource))


def _reach(facts: _Facts) -> tuple[str, ...]:
    network = "reaches the origins on the agent's allow-list" if facts.get("network") else "no network"
    fed = (f"is fed {facts.size('stdin')}",) if facts.get("stdin") else ()
    env = facts.get("env")
    variables = (
        (f"variables: {', '.join(quoted(str(name)) for name in sorted(env)[:NAMES_MAX])}",) if isinstance(env, Mapping) and env else ()
    )
    return (f"can change anything in {facts.workspace}", network, *fed, *variables)


def _headers(facts: _Facts) -> tuple[str, ...]:
    headers = facts.get("headers")
    if not isinstance(headers, Mapping) or not headers:
        return ()
    return (f"headers: {', '.join(quoted(str(name)) for name in sorted(headers)[:TOUCHES_MAX])}",)


def _arguments(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Each argument as `name: value`, for operations without a sentence of their own."""
    return tuple(f"{shown(name, 60)}: {_value(arguments[name])}" for name in sorted(arguments)[:TOUCHES_MAX])


def _value(value: Any) -> str:
    return quoted(value if isinstance(value, str) else canonical_json(value).decode())


def _warnings(action: Action) -> tuple[str, ...]:
    """What a reader would not see: letters that only look like others, and parts that were cut."""
    texts = [action.resource, *(value for value in action.arguments.values() if isinstance(value, str))]
    texts += [str(word) for value in action.arguments.values() if isinstance(value, list | tuple) for word in value]
    strange = any(not text.isascii() for text in texts)
    long = any(len(text) > SHOWN_CHARS_MAX for text in texts) or sum(len(text) for text in texts) > SHOWN_CHARS_MAX
    said = ("beware: it holds letters outside ASCII, which may only look like others",) if strange else ()
    return (*said, "beware: parts of it are too long to show here; read its arguments") if long else said
