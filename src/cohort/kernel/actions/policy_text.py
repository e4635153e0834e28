"""A policy file read, checked and made ready: Cedar text into parsed policies, with errors that name the line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import cedarpy

from cohort.base.errors import CohortError
from cohort.kernel.actions.policy_reads import Reads, reads_of

POLICY_CHARS_MAX = 262_144
POLICIES_MAX = 500
OWN_PREFIX = "cohort."
TAINT_WORDS = ('"untrusted"', '"private"')

_PIECES = re.compile(r'//[^\n]*|"(?:[^"\\\n]|\\.)*"|;|[^;"/]+|.', re.DOTALL)
_END = ";"
_BLANK = re.compile(r"(?:\s+|//[^\n]*)+")


@dataclass(frozen=True, slots=True)
class Statement:
    """One policy of a file. `asks`: a forbid that a person may lift for one action. `own`: of the user's file, not shipped."""

    id: str
    effect: str
    asks: bool
    reason: str
    line: int
    own: bool


@dataclass(frozen=True, slots=True)
class PolicyText:
    """Policies in Cedar's order: the n-th is what Cedar calls `policyN`. `canonical`: their JSON, without comments and layout.

    `asks_taint`: whether one of them looks at what a session has read. `reads`: what they look at at all.
    """

    statements: tuple[Statement, ...]
    canonical: tuple[Any, ...]
    parsed: cedarpy.PolicySet
    asks_taint: bool
    reads: Reads


def shipped() -> str:
    """The default policies that come with Cohort."""
    return _packaged("policy_default.cedar")


@cache
def schema_text() -> str:
    """The Cedar schema that every policy is checked against."""
    return _packaged("policy_schema.cedarschema")


def _packaged(name: str) -> str:
    return resources.files("cohort.kernel.actions").joinpath(name).read_text(encoding="utf-8")


@cache
def _schema() -> cedarpy.Schema:
    return cedarpy.Schema.from_str(schema_text())


def read(user: str = "", source: str = "policy") -> PolicyText:
    """The shipped policies and those of `user`. `source`: the name of its file, for errors.

    Raises:
        CohortError POLICY_INVALID: names the file, the line and the fault.
    """
    if len(user) > POLICY_CHARS_MAX:
        raise _invalid(source, 1, f"{len(user)} characters, and {POLICY_CHARS_MAX} is the most")
    own, theirs = _statements(shipped(), "shipped policies", own=False), _statements(user, source, own=True)
    names = [statement.id for _, statement in theirs]
    for _, statement in theirs:
        if names.count(statement.id) > 1:
            raise _invalid(source, statement.line, f"the id {statement.id!r} is there twice")
    both = [text for text, _ in (*own, *theirs)]
    parsed = cedarpy.PolicySet.from_str("\n".join(both))
    _validate(theirs, source)
    canonical = tuple(_json(text) for text in both)
    said = json.dumps(canonical)
    asks_taint = any(word in said for word in TAINT_WORDS)
    return PolicyText(tuple(statement for _, statement in (*own, *theirs)), canonical, parsed, asks_taint, reads_of(canonical))


def read_file(file: Path) -> PolicyText:
    """As `read`, of a file in UTF-8. Errors: POLICY_INVALID, also when it cannot be read."""
    try:
        with file.open("rb") as opened:
            text = opened.read(POLICY_CHARS_MAX * 4 + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        hint = "Name a file that can be read, with UTF-8 text in it."
        raise CohortError("POLICY_INVALID", f"{file}: cannot be read: {why}", field="kernel.policy_file", hint=hint) from error
    return read(text, file.name)


def _statements(text: str, source: str, *, own: bool) -> list[tuple[str, Statement]]:
    found = []
    for line, piece in split(text):
        try:
            body = _json(piece)
        except ValueError as error:
            raise _invalid(source, line, str(error)) from error
        found.append((piece, _statement(body, line, source, own=own)))
        if len(found) > POLICIES_MAX:
            raise _invalid(source, line, f"more than {POLICIES_MAX} policies")
    return found


def _json(text: str) -> Any:
    """The canonical form of one policy. Raises ValueError."""
    body = json.loads(cedarpy.policies_to_json_str(text))
    if body["templates"] or len(body["staticPolicies"]) != 1:
        raise ValueError("a template or an empty policy; write the principal and resource out")
    return body["staticPolicies"]["policy0"]


def split(text: str) -> Iterator[tuple[int, str]]:
    """Each policy with the line it begins on: pieces that end in a semicolon outside of strings and comments."""
    piece, line, begins = "", 1, 0
    for token in _PIECES.findall(text):
        if not begins and not _BLANK.fullmatch(token):
            blank = len(token) - len(token.lstrip())
            begins = line + token[:blank].count("\n")
        piece += token
        line += token.count("\n")
        if token == _END:
            yield begins, piece
            piece, begins = "", 0
    if begins:
        yield begins, piece


def _statement(body: Mapping[str, Any], line: int, source: str, *, own: bool) -> Statement:
    notes = {name: value or "" for name, value in body.get("annotations", {}).items()}
    name = notes.get("id") or f"line-{line}"
    if own and (name.startswith(OWN_PREFIX) or not re.fullmatch(r"[\w.-]{1,64}", name)):
        raise _invalid(
            source, line, f"the id {name[:64]!r} is not free to use; take up to 64 letters, digits, `.`, `_`, `-`, not `{OWN_PREFIX}`"
        )
    answer = notes.get("answer")
    if answer is not None and (answer != "ask" or body["effect"] != "forbid"):
        raise _invalid(source, line, '`@answer("ask")` is the only answer there is, and it stands before a forbid')
    reason = notes.get("reason", "")[:300] or f"policy {name}"
    return Statement(name, body["effect"], answer == "ask", reason, line, own)


def _validate(theirs: list[tuple[str, Statement]], source: str) -> None:
    if not theirs:
        return
    result = cedarpy.validate_policies("\n".join(text for text, _ in theirs), _schema())
    for error in result.errors:
        number = int(error.policy_id.removeprefix("policy") or 0)
        raise _invalid(source, theirs[number][1].line, re.sub(r"^for policy `policy\d+`, ", "", error.error))


def _invalid(source: str, line: int, why: str) -> CohortError:
    hint = "Correct that line; the names a policy can use are in the policy reference."
    return CohortError("POLICY_INVALID", f"{source}, line {line}: {why}", field=f"{source}:{line}", hint=hint, line=line)
